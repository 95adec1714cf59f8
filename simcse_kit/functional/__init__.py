"""Pure tensor functions: losses and measures."""
