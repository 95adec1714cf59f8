"""Cache of built corpora: folder, keys and manifests, protected from other users."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from simcse_kit.data.bad_rows import ReadReport
from simcse_kit.data.files import suffix_of
from simcse_kit.data.read_options import ReadOptions
from simcse_kit.data.readers import Kind
from simcse_kit.errors import ConfigError, DataError
from simcse_kit.utils.files import checksum_of, sha256_of

__all__ = [
    "COPY_REMEDY",
    "FORMAT_VERSION",
    "CorpusManifest",
    "cache_folder",
    "cache_key",
    "check_private",
    "copy_place",
    "is_own_file",
    "make_private",
]

FORMAT_VERSION = 1
"""Part of every key; raise it whenever the same text would give other rows."""

COPY_REMEDY = "set SIMCSE_CACHE to a folder of your own"
"""Advice if the cache cannot be written."""

# Windows has no owners of this kind.
_USER = os.getuid() if hasattr(os, "getuid") else None
_TRUSTED = (_USER, 0)


def cache_folder(cache_dir: str | Path | None = None, name: str = "corpora") -> Path:
    """Return the folder ``name`` in ``cache_dir``, $SIMCSE_CACHE or ~/.cache/simcse_kit."""
    base = cache_dir or os.environ.get("SIMCSE_CACHE") or Path.home() / ".cache" / "simcse_kit"
    return Path(base).expanduser() / name


def cache_key(files: Sequence[Path], options: ReadOptions) -> str:
    """Make the key of a corpus: 40 hex digits from content and options, not from times or names.

    Args:
        files: The files in order, of which content and suffix count.
        options: Options of reading.

    Raises:
        DataError: A file cannot be read.
    """
    settings = {
        name: getattr(options, name)
        for name in ("columns", "on_bad_row", "max_line_bytes", "label", "documents")
    }
    # Options that older keys do not have count only if they are set.
    usual = ReadOptions(columns=options.columns)
    for name in ("format", "header", "skip_blank"):
        if getattr(options, name) != getattr(usual, name):
            settings[name] = getattr(options, name)
    contents = [[suffix_of(file), _content_hash(file)] for file in files]
    parts = {"version": FORMAT_VERSION, "files": contents, "settings": settings}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:40]


def _content_hash(file: Path) -> str:
    try:
        return sha256_of(file)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", file=file) from None


@dataclass(frozen=True, slots=True)
class CorpusManifest:
    """Facts about a built corpus, kept as JSON next to the Arrow file.

    Args:
        kind: What the rows hold.
        rows: Number of rows.
        negatives: Largest number of hard negatives in a row.
        bytes: Size of the Arrow file.
        checksum: Checksum of the Arrow file.
        skipped: Number of skipped rows by reason.
        first_skipped: Number of the file from 0 and line of the first skipped row by reason, so
            that a corpus found under other file names reports those names.
        file_rows: Number of rows of each file; empty in manifests of earlier versions.
    """

    kind: Kind
    rows: int
    negatives: int
    bytes: int
    checksum: str
    skipped: dict[str, int]
    first_skipped: dict[str, tuple[int, int]]
    file_rows: list[int] = field(default_factory=list)

    @classmethod
    def of(
        cls, kind: Kind, negatives: int, arrow: Path, report: ReadReport, files: Sequence[Path]
    ) -> CorpusManifest:
        """Describe a corpus just built from ``files`` at ``arrow``."""
        names = [str(file) for file in files]
        first: dict[str, tuple[int, int]] = {}
        for reason, place in report.first_skipped.items():
            name, _, line = place.rpartition(":")
            first[reason] = names.index(name), int(line)
        size, checksum = arrow.stat().st_size, checksum_of(arrow)
        skipped, counts = dict(report.skipped), list(report.file_rows)
        return cls(kind, report.rows, negatives, size, checksum, skipped, first, counts)

    def report(self, files: Sequence[Path]) -> ReadReport:
        """Return the report of reading, with places in ``files``."""
        first = {
            reason: f"{files[number]}:{line}"
            for reason, (number, line) in self.first_skipped.items()
        }
        return ReadReport(self.rows, dict(self.skipped), first, list(self.file_rows))

    def to_json(self) -> str:
        """Return the manifest as JSON text with a checksum of itself."""
        values = {"version": FORMAT_VERSION, **asdict(self)}
        return json.dumps({**values, "record_sha256": _sum(values)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> CorpusManifest:
        """Read the text of :meth:`to_json`.

        Raises:
            ValueError, KeyError, TypeError, AttributeError: The text is not a valid manifest.
        """
        values = json.loads(text)
        if values.pop("record_sha256") != _sum(values):
            raise ValueError("changed")
        if values.pop("version") != FORMAT_VERSION:
            raise ValueError("another version")
        first = {
            reason: (int(n), int(line)) for reason, (n, line) in values["first_skipped"].items()
        }
        return cls(**{**values, "first_skipped": first})


def _sum(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def make_private(folder: Path, *, remedy: str) -> None:
    """Make a folder that only its owner can read, or check the existing one.

    Args:
        folder: The folder; missing parents are made with the usual permissions.
        remedy: Advice for the error message.

    Raises:
        ConfigError: The folder cannot be made, or :func:`check_private` refuses it.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"the cache folder {folder} cannot be made: {reason}; {remedy}") from None
    check_private(folder, remedy=remedy)


def check_private(folder: Path, *, remedy: str) -> None:
    """Check that no other user can write to an existing folder.

    Raises:
        ConfigError: The folder is a symbolic link, belongs to another user except root, or can be
            written by every user.
    """
    try:
        status = folder.lstat()
    except OSError:
        return
    if stat.S_ISLNK(status.st_mode):
        raise ConfigError(f"the cache folder {folder} is a symbolic link; {remedy}")
    if _USER is None:
        return
    if status.st_uid not in _TRUSTED:
        raise ConfigError(
            f"the cache folder {folder} belongs to another user (number {status.st_uid}), who "
            f"could change the training text; {remedy}"
        )
    if status.st_mode & stat.S_IWOTH:
        raise ConfigError(
            f"every user can write to the cache folder {folder}, and could change the training "
            f"text; run chmod 700 on it, or {remedy}"
        )


def is_own_file(path: Path) -> bool:
    """Check whether ``path`` is a regular file, not a link, of this user or root."""
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and (_USER is None or status.st_uid in _TRUSTED)


def copy_place(version: str, name: str) -> Path:
    """Return the path of a copy in the cache, whose folder depends on the version of the data."""
    parent = cache_folder(name="remote")
    make_private(parent, remedy=COPY_REMEDY)
    folder = parent / hashlib.sha256(version.encode()).hexdigest()[:20]
    make_private(folder, remedy=COPY_REMEDY)
    return folder / name
