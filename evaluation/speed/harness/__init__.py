"""Side-by-side measurement in one worker process per variant, run in rotation."""
