"""Sentence encoders built on Hugging Face transformers."""
