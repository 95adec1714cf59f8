"""Monitors of a training run: geometry, collapse and divergence."""
