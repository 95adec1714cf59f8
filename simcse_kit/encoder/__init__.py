"""Wrapping a Hugging Face transformer as a sentence encoder."""
