"""Whether training text holds sentences of evaluation sets."""
