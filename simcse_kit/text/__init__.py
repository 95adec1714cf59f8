"""Training text: readers, corpora, collation and augmentation."""
