"""State of a run on disk: checkpoints, output folder, comparison with a resumed run."""
