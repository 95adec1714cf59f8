"""Which files are read: suffixes, folders, and what a path must be."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from simcse_kit.errors import DataError

__all__ = ["SUFFIXES", "Format", "check_file", "find_files", "format_of", "suffix_of"]

Format = Literal["txt", "csv", "tsv", "jsonl", "parquet"]

_FORMATS: dict[str, Format] = {
    ".txt": "txt",
    ".txt.gz": "txt",
    ".csv": "csv",
    ".csv.gz": "csv",
    ".tsv": "tsv",
    ".tsv.gz": "tsv",
    ".jsonl": "jsonl",
    ".jsonl.gz": "jsonl",
    ".parquet": "parquet",
}
SUFFIXES: tuple[str, ...] = tuple(_FORMATS)
"""The suffixes that are read, whatever their case."""


def suffix_of(path: str | Path) -> str | None:
    """The supported suffix of ``path`` in lower case (``.txt.gz`` counts as one), or None."""
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    wanted = "".join(suffixes[-2:] if suffixes[-1:] == [".gz"] else suffixes[-1:])
    return wanted if wanted in _FORMATS else None


def format_of(path: str | Path) -> Format:
    """The format that the suffix of ``path`` stands for.

    Raises:
        DataError: the suffix is not supported; the message lists those that are.
    """
    suffix = suffix_of(path)
    if suffix is None:
        given = Path(path).suffix
        what = f"suffix {given!r} is not supported" if given else "the file name has no suffix"
        raise DataError(f"{what}; rename it to one of: {', '.join(SUFFIXES)}", file=path)
    return _FORMATS[suffix]


def check_file(path: str | Path) -> Path:
    """``path`` as a Path, once it is known to be a regular file.

    Raises:
        DataError: it is missing, a folder, a pipe, a device, or may not be looked at.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        what = "a link whose target is missing" if path.is_symlink() else "no such file or folder"
        raise DataError(f"{what}; check the path", file=path) from None
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be opened: {_cause(error)}", file=path) from None
    if stat.S_ISDIR(mode):
        raise DataError("is a folder, not a file", file=path)
    if not stat.S_ISREG(mode):
        what = "a pipe" if stat.S_ISFIFO(mode) else "a device or socket"
        raise DataError(f"is {what}, not a regular file; write the text to a file first", file=path)
    return path


def find_files(paths: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files that ``paths`` stand for, in the order given; a folder is replaced by its files.

    Of a folder the files with a supported suffix are taken, sorted by name; hidden files and
    subfolders are not.

    Raises:
        DataError: no path; a path is missing or not a regular file; a suffix is not supported;
            a folder has no file with a supported suffix.
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    if not given:
        raise DataError("no input file; give at least one file or folder")
    found: list[Path] = []
    for path in map(Path, given):
        if str(path) == "-":
            raise DataError(
                "standard input cannot be read more than once; write the text to a file first",
                file="-",
            )
        files = _in_folder(path) if _is_folder(path) else [path]
        for file in files:
            check_file(file)
            format_of(file)
        found += files
    return found


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _in_folder(folder: Path) -> list[Path]:
    try:
        entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"cannot be listed: {_cause(error)}", file=folder) from None
    files = [
        entry
        for entry in entries
        if suffix_of(entry) and not entry.name.startswith(".") and not _is_folder(entry)
    ]
    if not files:
        raise DataError(
            f"the folder has no file with one of these suffixes: {', '.join(SUFFIXES)} "
            "(subfolders are not searched)",
            file=folder,
        )
    return files


def _cause(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
