"""Confidence intervals of scores, and significance tests of their differences."""
