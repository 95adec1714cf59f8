"""Upload of encoders to the Hugging Face Hub."""
