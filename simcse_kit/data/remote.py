"""Local copies of training data on object stores and of data sets of the Hugging Face Hub.

An address such as ``s3://bucket/train.csv`` is that of an fsspec file system. The name of a data
set is ``hf:owner/name:split#columns``. Both are copied into the cache before they are read, since
the text is read more than once.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from operator import eq
from pathlib import Path
from typing import Any

from simcse_kit.data.columns import choose_columns
from simcse_kit.data.corpus_cache import cache_folder, make_private
from simcse_kit.data.files import SUFFIXES_IN_WORDS, format_of, suffix_of
from simcse_kit.data.graded import SCORE_NAMES
from simcse_kit.errors import ConfigError, DataError
from simcse_kit.registry import closest
from simcse_kit.utils.files import replacement

__all__ = [
    "RemoteFile",
    "is_data_set",
    "is_remote",
    "local_file",
    "local_files",
    "open_split",
    "remote_files",
]

logger = logging.getLogger(__name__)

_REMEDY = "set SIMCSE_CACHE to a folder of your own"
_REMOTE = re.compile(r"hf:|[a-z][a-z0-9+.-]*://")
_FORM = "hf:owner/name:split#column, such as hf:sentence-transformers/all-nli:train#anchor,positive"
# The split may be a part, such as train[:1000]. A third part of the name is the configuration.
_DATA_SET = re.compile(r"hf:([^#]+?)(?::(\w[^:#/\[]*(?:\[[^\]]*\])?))?(?:#(.+))?")


def is_remote(name: str | Path) -> bool:
    """Check whether a name is an address or the name of a data set, and not a path."""
    return isinstance(name, str) and _REMOTE.match(name) is not None


def is_data_set(name: str | Path) -> bool:
    """Check whether a name is that of a data set of the Hub."""
    return isinstance(name, str) and name.startswith("hf:") and not name.startswith("hf://")


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
        return [_data_set(name)]
    return _copies(name)


def open_split(repository: str, split: str, *, remedy: str, config: str | None = None) -> Any:
    """Open one split of a data set from the Hub, its local cache or a folder.

    Args:
        repository: Name of the data set, or a folder.
        split: Name of the split.
        remedy: Advice for the error message.
        config: Name of the configuration; None for a data set that has only one.

    Returns:
        The split, a ``datasets.Dataset``.

    Raises:
        DataError: The split cannot be opened, for example without a network.
    """
    try:
        # Imported here, because it takes a second and most runs read files.
        from datasets import load_dataset

        return load_dataset(repository, config, split=split)
    except Exception as error:  # without a network the client raises many unrelated types
        raise DataError(
            f"cannot download {repository} ({split}) from the Hub ({_reason(error)}); check the "
            f"network, or {remedy}"
        ) from error


def _data_set(name: str) -> Path:
    """Write a split of a data set to a .parquet file in the cache."""
    match = _DATA_SET.fullmatch(name)
    if match is None:
        raise ConfigError(f"{name!r} is not the name of a data set; write {_FORM}")
    repository, split, columns = match[1], match[2] or "train", match[3]
    config = None
    if not Path(repository).is_dir():
        owner, *rest = repository.split("/")
        if len(rest) > 2:
            raise ConfigError(f"{name!r} is neither a folder nor a data set; write {_FORM}")
        repository = "/".join([owner, *rest[:1]])
        config = rest[1] if len(rest) == 2 else None
    table = open_split(repository, split, config=config, remedy="give another name or a file")
    if columns is not None:
        table = _chosen(table, [column.strip() for column in columns.split(",")], name)
    stem = re.sub(r"\W+", "-", f"{Path(repository).name}-{split}").strip("-")
    target = _place(f"{name}{table._fingerprint}", f"{stem}.parquet")
    if not target.exists():
        with replacement(target, remedy=_REMEDY) as temporary:
            table.to_parquet(str(temporary))
    logger.info("%s: %d rows, copied to %s", name, len(table), target)
    return target


def _chosen(table: Any, columns: Sequence[str], name: str) -> Any:
    """Keep some columns, under names that training files have."""
    for column in columns:
        if column not in table.column_names:
            raise DataError(
                f"no column {column!r}{closest(column, table.column_names)}; the columns are "
                f"{', '.join(table.column_names)}",
                file=name,
            )
    table = table.select_columns(list(columns))
    known: Sequence[str] = ()
    with suppress(DataError):
        known = choose_columns(columns, None, file=name, line=None, lists=True)
    if known and all(map(eq, known, columns)):  # in the order that the reader expects
        return table
    return table.rename_columns(dict(zip(columns, _usual_names(columns), strict=True)))


def _usual_names(columns: Sequence[str]) -> list[str]:
    if len(columns) == 1:
        return ["text"]
    if len(columns) == 3 and columns[2].lower() in SCORE_NAMES:
        return ["sentence1", "sentence2", "score"]
    return ["anchor", "positive", *(f"negative_{place}" for place in range(1, len(columns) - 1))]


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
        with replacement(target, remedy=_REMEDY) as temporary, _readable(self.address):
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
        target = _place(f"{address}{sorted(info.items(), key=str)}", file.file_name)
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
            f"{address!r} cannot be opened ({_reason(error)}); give a path, or an address such as "
            "s3://bucket/train.csv"
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
            f"cannot be read ({_reason(error)}); check the address, the network and the "
            "credentials",
            file=address,
        ) from None


def _reason(error: Exception) -> str:
    text = (str(error).strip().split("\n")[0] or "no reason given").rstrip(".")
    return f"{type(error).__name__}: {text}"


def _place(version: str, name: str) -> Path:
    """Return the path of a copy in the cache, whose folder depends on the version of the data."""
    parent = cache_folder(name="remote")
    make_private(parent, remedy=_REMEDY)
    folder = parent / hashlib.sha256(version.encode()).hexdigest()[:20]
    make_private(folder, remedy=_REMEDY)
    return folder / name
