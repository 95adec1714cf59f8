"""What a run keeps on disk: checkpoints, its output folder, what a resumed run must share."""
