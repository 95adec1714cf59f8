"""Measures of embeddings: correlation, geometry, collapse, nearest neighbours, whitening."""
