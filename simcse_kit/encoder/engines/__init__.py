"""Exported encoders: the whole way from token ids to vectors as one file for another runtime."""
