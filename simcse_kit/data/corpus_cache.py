"""Where built corpora are kept, and under which key."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from simcse_kit.data.files import suffix_of
from simcse_kit.data.readers import Kind, ReadReport
from simcse_kit.errors import DataError
from simcse_kit.utils.checksums import checksum_of, sha256_of

__all__ = ["FORMAT_VERSION", "CorpusRecord", "cache_folder", "fingerprint"]

FORMAT_VERSION = 1
"""Part of every key: raise it whenever the same text would be built into other rows."""


def cache_folder(cache_dir: str | Path | None = None) -> Path:
    """The folder of built corpora: ``corpora`` in ``cache_dir``, $SIMCSE_CACHE or ~/.cache."""
    base = cache_dir or os.environ.get("SIMCSE_CACHE") or Path.home() / ".cache" / "simcse_kit"
    return Path(base).expanduser() / "corpora"


def fingerprint(files: Sequence[Path], settings: dict[str, Any]) -> str:
    """The key of a corpus: 40 hex digits made from content and settings, never from times or names.

    Args:
        files: the files in order; content and suffix count.
        settings: whatever else decides which rows come out; JSON values.

    Raises:
        DataError: a file cannot be read.
    """
    contents = [[suffix_of(file), _content_hash(file)] for file in files]
    parts = {"version": FORMAT_VERSION, "files": contents, "settings": settings}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:40]


def _content_hash(file: Path) -> str:
    try:
        return sha256_of(file)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", file=file) from None


@dataclass(frozen=True, slots=True)
class CorpusRecord:
    """What is known of a built corpus besides its rows; kept as JSON beside the Arrow file.

    Args:
        kind: what its rows are.
        rows: number of rows.
        negatives: most hard negatives of any row.
        bytes: size of the Arrow file.
        checksum: of the Arrow file.
        skipped: reason -> number of rows skipped.
        first_skipped: reason -> (number of the file from 0, line), so that a corpus found again
            under other file names reports those.
    """

    kind: Kind
    rows: int
    negatives: int
    bytes: int
    checksum: str
    skipped: dict[str, int]
    first_skipped: dict[str, tuple[int, int]]

    @classmethod
    def of(
        cls, kind: Kind, negatives: int, arrow: Path, report: ReadReport, files: Sequence[Path]
    ) -> CorpusRecord:
        """The record of a corpus just built from ``files`` at ``arrow``."""
        names = [str(file) for file in files]
        first: dict[str, tuple[int, int]] = {}
        for reason, place in report.first_skipped.items():
            name, _, line = place.rpartition(":")
            first[reason] = names.index(name), int(line)
        size, checksum = arrow.stat().st_size, checksum_of(arrow)
        return cls(kind, report.rows, negatives, size, checksum, dict(report.skipped), first)

    def report(self, files: Sequence[Path]) -> ReadReport:
        """The report of reading, with the places named after ``files``."""
        first = {
            reason: f"{files[number]}:{line}"
            for reason, (number, line) in self.first_skipped.items()
        }
        return ReadReport(self.rows, dict(self.skipped), first)

    def to_json(self) -> str:
        """The record as JSON text, with a checksum of itself."""
        values = {"version": FORMAT_VERSION, **asdict(self)}
        return json.dumps({**values, "record_sha256": _sum(values)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> CorpusRecord:
        """Read back what :meth:`to_json` wrote.

        Raises:
            ValueError, KeyError, TypeError, AttributeError: it is not such a text.
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
