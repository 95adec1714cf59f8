"""Batches without padding: the tokens of all rows end to end, attention within each row."""
