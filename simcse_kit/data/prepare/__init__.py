"""Tools that make training data out of other data."""
