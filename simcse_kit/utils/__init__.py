"""Helpers that do not depend on sentences or models: files, processes, progress, tables."""
