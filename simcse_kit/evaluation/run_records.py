"""Records of a training run in the folder of a model, which may be untrusted."""

from __future__ import annotations

import json
import logging
import os
import stat
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from simcse_kit.errors import DataError

__all__ = ["read_history", "read_training_files"]

logger = logging.getLogger(__name__)

_HISTORY, _RECORD = "metrics.jsonl", "run.toml"

_MOST_HISTORY, _MOST_LINE, _MOST_ROWS = 128_000_000, 65_536, 200_000
_MOST_RECORD = 1_000_000
# Larger numbers are not losses, scores or steps, and cannot be drawn.
_LARGEST = 1e12


def read_history(folder: Path) -> list[dict[str, float]] | None:
    """Read the rows of ``metrics.jsonl`` that have a step, with their finite numbers.

    Skipped lines are counted in the log.

    Args:
        folder: folder of a model.

    Returns:
        The rows; None if there is no file, or if the file cannot be used, which is logged.
    """
    path = folder / _HISTORY
    rows: list[dict[str, float]] = []
    skipped: list[int] = []
    try:
        with _opened(folder, _HISTORY, _MOST_HISTORY) as file:
            number = 0
            while line := file.readline(_MOST_LINE):
                number += 1
                if len(line) == _MOST_LINE and not line.endswith(b"\n"):
                    raise DataError(f"line {number} is longer than {_MOST_LINE:,} bytes")
                if line.isspace():
                    continue
                row = _row(line)
                if row is None:
                    skipped.append(number)
                else:
                    rows.append(row)
                if len(rows) + len(skipped) > _MOST_ROWS:
                    raise DataError(f"has more than {_MOST_ROWS:,} lines")
    except FileNotFoundError:
        return None
    except (OSError, DataError) as error:
        logger.warning("%s is not shown: %s", path, getattr(error, "strerror", None) or error)
        return None
    if skipped:
        logger.warning(
            "%s: skipped %d lines that are not records with a step; the first is line %d",
            path,
            len(skipped),
            skipped[0],
        )
    return rows


def read_training_files(folder: Path) -> tuple[list[str], list[str] | None]:
    """Read the names of the training files, and of their text columns if any, in ``run.toml``.

    Args:
        folder: folder of a model.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: the file cannot be used.
    """
    path = folder / _RECORD
    try:
        with _opened(folder, _RECORD, _MOST_RECORD) as file:
            data = tomllib.loads(file.read(_MOST_RECORD).decode())["data"]
        files, columns = data["train"], data.get("columns")
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError, DataError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot be read: {reason}", file=path) from None
    except (KeyError, TypeError, AttributeError):
        raise DataError("names no training files (data.train)", file=path) from None
    files = [files] if isinstance(files, str) else files
    for name, value in (("data.train", files), ("data.columns", columns or [])):
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise DataError(f"{name} is not a list of names", file=path)
    return files, columns or None


@contextmanager
def _opened(folder: Path, name: str, most: int) -> Iterator[BinaryIO]:
    """Open a file in the folder of a model, without waiting for a pipe.

    Raises:
        OSError: the file cannot be opened.
        DataError: the file is not a regular file inside the folder, or is too large.
    """
    path = folder / name
    home, real = Path(os.path.realpath(folder)), Path(os.path.realpath(path))
    # In the Hub's cache, files are links into the folder blobs, two levels up.
    if not real.is_relative_to(home) and real.parent != home.parent.parent / "blobs":
        raise DataError("it is a link to a file outside its folder")
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise DataError("it is not a regular file")
        if found.st_size > most:
            raise DataError(f"it has {found.st_size:,} bytes; at most {most:,} are read")
        yield file


def _row(line: bytes) -> dict[str, float] | None:
    try:
        found: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    row = {
        key: float(value)
        for key, value in found.items()
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and -_LARGEST <= value <= _LARGEST
    }
    return row if "step" in row else None
