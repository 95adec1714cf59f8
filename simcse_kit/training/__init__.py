"""Training of a method on a corpus: phases, state on disk, comparison of methods."""
