"""Side-by-side measurement: a worker process for each variant, asked in rotation."""
