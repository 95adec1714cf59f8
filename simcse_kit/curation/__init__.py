"""From raw files to training files: triplets, pairs, hard negatives, duplicates, splits."""
