"""Files of the training data from paths, folders and addresses."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from simcse_kit.data.files import (
    SUFFIXES_IN_WORDS,
    cause_of,
    check_file,
    format_of,
    suffix_of,
)
from simcse_kit.data.remote import is_remote, local_files
from simcse_kit.errors import DataError

__all__ = ["find_files"]

logger = logging.getLogger(__name__)


def find_files(paths: str | Path | Sequence[str | Path]) -> list[Path]:
    """List the files of ``paths`` in the order given; a folder is replaced by its files.

    A folder means all of its files with a supported suffix, sorted by name, without hidden files
    and subfolders. A log line counts the other files in it. A string may also be an address or the
    name of a data set, which is copied first, see
    :func:`~simcse_kit.data.remote.local_files`.

    Raises:
        DataError: There is no path; a path is missing or not a regular file; a suffix is not
            supported; a folder has no file with a supported suffix; a copy cannot be made.
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    if not given:
        raise DataError("no input file; give at least one file or folder")
    found: list[Path] = []
    for entry in given:
        if is_remote(entry):
            found += local_files(str(entry))
            continue
        path = Path(entry)
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
        raise DataError(f"cannot be listed: {cause_of(error)}", file=folder) from None
    plain = [entry for entry in entries if not entry.name.startswith(".")]
    files = [entry for entry in plain if suffix_of(entry) and not _is_folder(entry)]
    if not files:
        raise DataError(
            f"the folder has no file with one of these suffixes: {SUFFIXES_IN_WORDS} "
            "(subfolders are not searched); give the files by name",
            file=folder,
        )
    taken = set(files)
    others = [entry for entry in plain if entry not in taken]
    if others:
        logger.info(
            "%s: reading %d files; ignoring %d other entries, such as %s",
            folder,
            len(files),
            len(others),
            others[0].name,
        )
    return files
