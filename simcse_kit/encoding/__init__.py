"""Encoding as a job: files of any size to vectors on disk, resumable, in one process or many."""
