"""Errors that users can fix.

Each message is one line: what is wrong, where, the value given, what is allowed, and a remedy. The
command line prints it and exits with code 2. Any other exception is a bug and keeps its traceback.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["ConfigError", "DataError", "MissingExtraError", "ModelError", "SimcseError"]


class SimcseError(Exception):
    """Base class of all errors that the user can fix."""


class ConfigError(SimcseError):
    """A setting, flag or configuration key is wrong."""


class ModelError(SimcseError):
    """A model folder or name cannot be opened, or lacks a part that its recipe needs."""


class DataError(SimcseError):
    """An input file is wrong.

    Args:
        message: what is wrong and what to do about it.
        file: the file, which precedes the message.
        line: the line in the file, counted from 1.
    """

    def __init__(self, message: str, *, file: str | Path | None = None, line: int | None = None):
        self.file = None if file is None else str(file)
        self.line = line
        where = "" if self.file is None else self.file if line is None else f"{self.file}:{line}"
        super().__init__(f"{where}: {message}" if where else message)


class ColumnsError(DataError):
    """The columns of an input file are not recognised.

    Args:
        message: what is wrong and what to do about it.
        header: names of the columns, or the first row, for other messages.
        file: the file, which precedes the message.
        line: the line in the file, counted from 1.
    """

    def __init__(
        self,
        message: str,
        header: str = "",
        *,
        file: str | Path | None = None,
        line: int | None = None,
    ):
        super().__init__(message, file=file, line=line)
        self.header = header


class MissingExtraError(SimcseError):
    """A feature needs an optional package.

    Args:
        feature: the feature that the user asked for.
        extra: the extra of simcse-kit that installs the package.
    """

    def __init__(self, feature: str, extra: str):
        super().__init__(
            f"{feature} needs an optional package; "
            f"install it with: pip install 'simcse-kit[{extra}]'"
        )
