"""The errors a user can meet.

Every message is one line that says what is wrong, where, the value that was given, what is allowed,
and what to do about it. The command line prints the message and exits with code 2; any other
exception is a defect of ours and keeps its traceback.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["ConfigError", "DataError", "MissingExtraError", "ModelError", "SimcseError"]


class SimcseError(Exception):
    """Base of all errors that the user can mend."""


class ConfigError(SimcseError):
    """A setting, flag or configuration key is wrong."""


class ModelError(SimcseError):
    """A model folder or name cannot be opened, or does not hold what its recipe needs."""


class DataError(SimcseError):
    """An input file is wrong.

    Args:
        message: what is wrong and what to do.
        file: the file, put in front of the message.
        line: the line in it, counted from 1.
    """

    def __init__(self, message: str, *, file: str | Path | None = None, line: int | None = None):
        self.file = None if file is None else str(file)
        self.line = line
        where = "" if self.file is None else self.file if line is None else f"{self.file}:{line}"
        super().__init__(f"{where}: {message}" if where else message)


class MissingExtraError(SimcseError):
    """A feature needs an optional package.

    Args:
        feature: what the user asked for.
        extra: the extra of simcse-kit that brings it.
    """

    def __init__(self, feature: str, extra: str):
        super().__init__(
            f"{feature} needs an optional package; "
            f"install it with: pip install 'simcse-kit[{extra}]'"
        )
