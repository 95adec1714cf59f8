"""Folders of encoders: finding, reading, writing and identifying them."""
