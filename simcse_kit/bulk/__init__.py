"""Resumable encoding of large files."""
