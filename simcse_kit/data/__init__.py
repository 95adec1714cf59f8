"""Text files as examples for training and evaluation."""
