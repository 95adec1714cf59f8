"""Order of the rows, and batches in less memory."""
