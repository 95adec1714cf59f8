"""Scoring encoders: STS, alignment and uniformity, and the report."""
