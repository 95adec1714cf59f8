"""Input files: supported suffixes and checks of a path."""

from __future__ import annotations

import shlex
import stat
from pathlib import Path
from typing import Literal

from simcse_kit.errors import DataError

__all__ = [
    "COMPRESSED",
    "SUFFIXES",
    "SUFFIXES_IN_WORDS",
    "FileFormat",
    "cause_of",
    "check_file",
    "first_line",
    "format_of",
    "suffix_of",
]

FileFormat = Literal["txt", "csv", "tsv", "jsonl", "json", "parquet"]

COMPRESSED = (".gz", ".bz2", ".xz")
"""Suffixes of compressed files, which follow the suffix of the format."""

_TEXT: tuple[FileFormat, ...] = ("txt", "csv", "tsv", "jsonl", "json")
_FORMATS: dict[str, FileFormat] = {
    f".{name}{packed}": name for name in _TEXT for packed in ("", *COMPRESSED)
} | {".parquet": "parquet"}
SUFFIXES: tuple[str, ...] = tuple(_FORMATS)
"""The supported suffixes, in upper or lower case."""
SUFFIXES_IN_WORDS = (
    ".txt, .csv, .tsv, .jsonl and .json, each also with .gz, .bz2 or .xz, and .parquet"
)
"""The supported suffixes, for messages."""

# Commands that unpack archives.
_UNPACK = {
    ".zip": "unzip {}",
    ".zst": "zstd -d {}",
    ".tar": "tar -xf {}",
    ".tgz": "tar -xf {}",
}


def suffix_of(path: str | Path) -> str | None:
    """Return the supported suffix of ``path`` in lower case (``.txt.gz`` is one), or None."""
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    packed = bool(suffixes) and suffixes[-1] in COMPRESSED
    wanted = "".join(suffixes[-2:] if packed else suffixes[-1:])
    return wanted if wanted in _FORMATS else None


def format_of(path: str | Path) -> FileFormat:
    """Return the format that the suffix of ``path`` names.

    Raises:
        DataError: The suffix is not supported; the message lists the supported ones.

    Examples:
        >>> format_of("train.csv.gz")
        'csv'
    """
    suffix = suffix_of(path)
    if suffix is None:
        raise DataError(_not_supported(Path(path)), file=path)
    return _FORMATS[suffix]


def _not_supported(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    given = path.suffix
    if given.lower() in COMPRESSED:
        given = "".join(path.suffixes[-2:])
    what = f"suffix {given!r} is not supported" if given else "the file name has no suffix"
    archive = next((suffix for suffix in suffixes[-2:] if suffix in _UNPACK), None)
    if archive is not None:
        return f"{what}; unpack it first: {_UNPACK[archive].format(shlex.quote(str(path)))}"
    return (
        f"{what}; allowed: {SUFFIXES_IN_WORDS}; convert the file, or rename it if it is one of "
        "these"
    )


def check_file(path: str | Path) -> Path:
    """Check that ``path`` is a regular file, and give it as a Path.

    Raises:
        DataError: The path is missing, a folder, a pipe or a device, or cannot be accessed.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        what = "a link whose target is missing" if path.is_symlink() else "no such file or folder"
        raise DataError(f"{what}; check the path", file=path) from None
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be opened: {cause_of(error)}", file=path) from None
    if stat.S_ISDIR(mode):
        raise DataError("is a folder, not a file", file=path)
    if not stat.S_ISREG(mode):
        what = "a pipe" if stat.S_ISFIFO(mode) else "a device or socket"
        raise DataError(f"is {what}, not a regular file; write the text to a file first", file=path)
    return path


def cause_of(error: Exception) -> str:
    """Describe an error of the operating system for a message."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def first_line(error: Exception) -> str:
    """Describe an error of any kind by its type and the first line of its message."""
    text = (str(error).strip().split("\n")[0] or "no reason given").rstrip(".")
    return f"{type(error).__name__}: {text}"
