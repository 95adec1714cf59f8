"""The manifest of an index: its encoder, settings, files and checksums."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from simcse_kit.errors import DataError
from simcse_kit.utils.files import sha256_of, write_atomic

__all__ = [
    "MANIFEST",
    "EncoderRecord",
    "EngineRecord",
    "FileRecord",
    "Manifest",
    "Segment",
    "read_manifest",
]

MANIFEST = "index.json"
"""Name of the manifest. An index exists from the moment at which this file does."""

_VERSION = 1
# Names of files below the folder; no part begins with a dot.
_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*", re.ASCII)
_ENDS = 65_536


@dataclass(frozen=True)
class FileRecord:
    """Size and checksums of a file.

    Attributes:
        bytes: Size of the file.
        sha256: SHA-256 of the file.
        ends: SHA-256 of the first and the last 64 KiB, which is quick to verify.
    """

    bytes: int
    sha256: str
    ends: str

    @classmethod
    def of(cls, path: Path, sha256: str | None = None) -> FileRecord:
        """Describe a file.

        Args:
            path: The file.
            sha256: Its SHA-256, if known.
        """
        return cls(path.stat().st_size, sha256 or sha256_of(path), _ends_of(path))

    def problem(self, path: Path, *, whole: bool) -> str | None:
        """Compare a file with the record.

        Args:
            path: The file.
            whole: Whether the whole file is read, and not only its size and its two ends.

        Returns:
            What is wrong; None if the file is intact.
        """
        try:
            size = path.stat().st_size
            if size != self.bytes:
                return f"it has {size:,} bytes in place of {self.bytes:,}"
            intact = sha256_of(path) == self.sha256 if whole else _ends_of(path) == self.ends
        except FileNotFoundError:
            return "it is missing"
        except OSError as error:
            return f"it cannot be read: {error.strerror or error}"
        return None if intact else "its content has changed"


def _ends_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        digest.update(file.read(_ENDS))
        file.seek(max(0, path.stat().st_size - _ENDS))
        digest.update(file.read(_ENDS))
    return digest.hexdigest()


@dataclass(frozen=True)
class EncoderRecord:
    """The encoder of an index.

    Attributes:
        model: Name or folder from which the encoder is loaded.
        fingerprint: SHA-256 over the files of the model.
        pooling: Pooling of the encoder.
        max_length: Maximum number of tokens per sentence.
        query_prompt: Text in front of every query.
        document_prompt: Text in front of every document.
    """

    model: str
    fingerprint: str
    pooling: str
    max_length: int
    query_prompt: str = ""
    document_prompt: str = ""


@dataclass(frozen=True)
class EngineRecord:
    """The search engine of an index.

    Attributes:
        name: Name of the engine.
        settings: Settings and measurements of the engine, such as its recall, as JSON values.
        folder: Name of the folder with the files of the engine; None if it has none.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    folder: str | None = None


@dataclass(frozen=True)
class Segment:
    """Rows that were added together; a segment never changes.

    Attributes:
        name: Name of its folder.
        rows: Number of rows, deleted ones included.
        vectors: Names of the files of vectors in the order of the rows, relative to the index.
    """

    name: str
    rows: int
    vectors: tuple[str, ...]


@dataclass(frozen=True)
class Manifest:
    """The state of an index, replaced atomically by every change.

    Attributes:
        generation: Number of the change that made this state, from 1.
        encoder: The encoder.
        dim: Number of dimensions of a vector.
        precision: Number format of the vectors that are searched.
        engine: The search engine.
        next_id: The next number for a row without an id.
        count: Number of rows without the deleted ones.
        segments: The segments in the order of their rows.
        deleted: Name of the file with the numbers of the deleted rows; None if there are none.
        files: All files of the index by their names.
    """

    generation: int
    encoder: EncoderRecord
    dim: int
    precision: str
    engine: EngineRecord
    next_id: int = 1
    count: int = 0
    segments: tuple[Segment, ...] = ()
    deleted: str | None = None
    files: dict[str, FileRecord] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Number of rows, deleted ones included."""
        return sum(segment.rows for segment in self.segments)

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(record.bytes for record in self.files.values())

    def write(self, folder: Path) -> None:
        """Write the manifest, which makes this state the current one.

        Raises:
            ConfigError: The file cannot be written.
        """
        values = {"version": _VERSION, **asdict(self)}
        text = json.dumps({**values, "sha256": _checksum(values)}, indent=1)
        write_atomic(folder / MANIFEST, text + "\n", remedy="free disk space, then try again")

    def check_files(self, folder: Path, *, whole: bool = False) -> None:
        """Compare the files of the index with their records.

        Args:
            folder: Folder of the index.
            whole: Whether whole files are read, and not only their sizes and ends.

        Raises:
            DataError: A file is missing or has changed.
            FileNotFoundError: A file is missing because another process has changed the index.
        """
        for name, record in self.files.items():
            problem = record.problem(folder / name, whole=whole)
            if problem is None:
                continue
            if read_manifest(folder).generation != self.generation:
                raise FileNotFoundError(folder / name)
            raise DataError(
                f"the file of the index is not as it was written: {problem}; restore the folder "
                "from a copy, or build the index again with --overwrite",
                file=folder / name,
            )


_ADAPTER = TypeAdapter(Manifest)


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of an index.

    Raises:
        DataError: The folder holds no index, or the manifest is damaged or of another version.
    """
    path = folder / MANIFEST
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        checksum, version = values.pop("sha256"), values["version"]
        if version != _VERSION:
            raise DataError(
                f"the index has the format version {version!r}, and this version of simcse_kit "
                f"reads {_VERSION}; build the index again, or use the version that wrote it",
                file=path,
            )
        if checksum != _checksum(values):
            raise ValueError
        del values["version"]
        manifest = _ADAPTER.validate_json(json.dumps(values), strict=True)
        if not all(_NAME.fullmatch(name) for name in manifest.files):
            raise ValueError
    except (FileNotFoundError, NotADirectoryError):
        what = "no such folder" if not folder.exists() else "the folder holds no finished index"
        raise DataError(
            f"{what}; build an index with: simcse index MODEL FILES... --output DIR (the same "
            "command continues after an interruption)",
            file=folder,
        ) from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", file=path) from None
    except (ValueError, KeyError, TypeError, AttributeError, ValidationError):
        raise DataError(
            "the manifest is damaged; restore it from a copy, or build the index again with "
            "--overwrite",
            file=path,
        ) from None
    return manifest


def _checksum(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
