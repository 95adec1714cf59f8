"""The command `simcse`; one file a command."""
