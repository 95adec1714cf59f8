"""From a configuration to a trained encoder."""
