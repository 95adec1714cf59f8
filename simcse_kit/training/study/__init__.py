"""Methods side by side: the same start, the same batches, several seeds."""
