"""Files, processes, progress and other parts that know nothing of sentences."""
