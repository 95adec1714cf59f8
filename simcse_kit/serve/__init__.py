"""HTTP server for a sentence encoder and an index, with OpenAI's embeddings API."""
