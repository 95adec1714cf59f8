"""Monitors of a run: geometry, collapse, divergence."""
