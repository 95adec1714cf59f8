"""Comparison of training methods: same start, same batches, several seeds."""
