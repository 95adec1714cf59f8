"""Local copies of files on object stores and of data sets of the Hugging Face Hub.

An address such as ``s3://bucket/train.csv`` is that of an fsspec file system. The name of a data
set is ``hf:owner/name:split#columns``. Both are copied into the cache before they are read, since
the text is read more than once.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from simcse_kit.data.corpus_cache import COPY_REMEDY, copy_place
from simcse_kit.data.files import SUFFIXES_IN_WORDS, first_line, format_of, suffix_of
from simcse_kit.data.hub_data import copy_data_set, is_data_set
from simcse_kit.errors import ConfigError, DataError
from simcse_kit.utils.files import replacement

__all__ = [
    "RemoteFile",
    "is_remote",
    "local_file",
    "local_files",
    "local_paths",
    "remote_files",
]

logger = logging.getLogger(__name__)

_REMOTE = re.compile(r"hf:|[a-z][a-z0-9+.-]*://")


def is_remote(name: str | Path) -> bool:
    """Check whether a name is an address or the name of a data set, and not a path."""
    return isinstance(name, str) and _REMOTE.match(name) is not None


def local_file(name: str | Path) -> Path:
    """Return the path of a file, after copying it if its name is an address.

    Raises:
        ConfigError, DataError: As for :func:`local_files`; or the address is that of a folder.
    """
    if not is_remote(name):
        return Path(name)
    files = local_files(str(name))
    if len(files) > 1:
        raise DataError(f"is a folder of {len(files)} files; give one of them", file=name)
    return files[0]


def local_files(name: str) -> list[Path]:
    """Copy data into the cache, unless it has been copied before and has not changed.

    Args:
        name: One of

            - the address of a file or folder on a file system of fsspec, such as
              ``s3://bucket/train.parquet``. A folder means its files with a supported suffix;
            - ``hf:owner/name:split#columns``: a data set of the Hub or a folder that
              ``datasets.load_dataset`` opens. ``owner/name/config`` names a configuration, the
              split is ``train`` by default, and without columns all are read. Columns of other
              names than those of training files are taken as text; anchor, positive; and hard
              negatives, or sentence1, sentence2, score if the third is a score.

    Returns:
        The copies; the log names them, since messages about bad rows do.

    Raises:
        ConfigError: The name is not of either form, the package of the file system is not
            installed, or the cache cannot be written.
        DataError: The data is missing or cannot be read, or a column is missing.
    """
    if is_data_set(name):
        return [copy_data_set(name)]
    return _copies(name)


def local_paths(names: Sequence[str | Path]) -> list[Path]:
    """Return the paths of files, after copying those whose names are addresses.

    Args:
        names: Paths, addresses of files or folders, and names of data sets.

    Raises:
        ConfigError, DataError: As for :func:`local_files`.
    """
    return [
        path
        for name in names
        for path in (local_files(str(name)) if is_remote(name) else [Path(name)])
    ]


@dataclass(frozen=True)
class RemoteFile:
    """A file on a file system of fsspec.

    Attributes:
        address: Address that was given, or that of the folder with the name of the file.
        system: The file system.
        info: What the file system knows: name, size, and perhaps time and checksum.
    """

    address: str
    system: Any
    info: dict[str, Any]

    @property
    def size(self) -> int:
        """Size in bytes; 0 if the file system does not know it."""
        return int(self.info.get("size") or 0)

    @property
    def file_name(self) -> str:
        """Name without folders."""
        return Path(self.info["name"]).name

    @property
    def version(self) -> str:
        """Text that changes when the file does, as far as the file system knows it."""
        return f"{self.address}{sorted(self.info.items(), key=str)}"

    def fetch(self, folder: Path) -> Path:
        """Copy the file into a folder, and return the path of the copy.

        Raises:
            DataError: The file is missing or cannot be read.
        """
        target = folder / self.file_name
        with replacement(target, remedy=COPY_REMEDY) as temporary, _readable(self.address):
            self.system.get_file(self.info["name"], str(temporary))
        return target


def remote_files(address: str) -> list[RemoteFile]:
    """List a file, or the files of a folder with a supported suffix, sorted by name.

    Args:
        address: Address or local path.

    Raises:
        ConfigError: The address is wrong, or the package of its file system is not installed.
        DataError: The file or folder is missing or cannot be read, or holds no data.
    """
    system, path = _file_system(address)
    with _readable(address):
        found = system.info(path)
        entries = [] if found["type"] != "directory" else system.ls(path, detail=True)
    if found["type"] != "directory":
        format_of(address)
        return [RemoteFile(address, system, found)]
    entries = sorted(entries, key=lambda entry: str(entry["name"]))
    infos = [entry for entry in entries if _is_data(entry)]
    if not infos:
        raise DataError(
            f"the folder has no file with one of these suffixes: {SUFFIXES_IN_WORDS} (subfolders "
            "are not searched)",
            file=address,
        )
    folder = address.rstrip("/")
    return [RemoteFile(f"{folder}/{Path(info['name']).name}", system, info) for info in infos]


def _copies(address: str) -> list[Path]:
    """Copy a file, or the files of a folder, from an fsspec file system."""
    copies = []
    for file in remote_files(address):
        info = file.info
        # Size, time and checksum, as far as the file system knows them.
        target = copy_place(f"{address}{sorted(info.items(), key=str)}", file.file_name)
        if not target.exists():
            file.fetch(target.parent)
        _say_once(info["name"], target)
        copies.append(target)
    return copies


@cache
def _say_once(name: str, target: Path) -> None:
    logger.info("%s: copied to %s", name, target)


def _is_data(entry: dict[str, Any]) -> bool:
    name = Path(entry["name"]).name
    return entry["type"] == "file" and not name.startswith(".") and suffix_of(name) is not None


def _file_system(address: str) -> tuple[Any, str]:
    """Return the fsspec file system of an address, and the path in it."""
    import fsspec

    scheme = address.partition("://")[0]
    try:
        return fsspec.core.url_to_fs(address)  # type: ignore[no-any-return]
    except ImportError as error:
        package = getattr(error.__cause__, "name", None) or getattr(error, "name", None) or scheme
        raise ConfigError(
            f"{address!r} needs the package {package}, which is not installed; install it with: "
            f"pip install {package}"
        ) from None
    except Exception as error:  # wrong addresses and credentials raise many unrelated types
        raise ConfigError(
            f"{address!r} cannot be opened ({first_line(error)}); give a path, or an address such "
            "as s3://bucket/train.csv"
        ) from None


@contextmanager
def _readable(address: str) -> Iterator[None]:
    """Turn the errors of a file system into one line."""
    try:
        yield
    except FileNotFoundError:
        raise DataError("no such file or folder; check the address", file=address) from None
    except Exception as error:  # each file system has its own
        raise DataError(
            f"cannot be read ({first_line(error)}); check the address, the network and the "
            "credentials",
            file=address,
        ) from None
