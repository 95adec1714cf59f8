"""Sentence encoders as parts of other libraries."""
