"""The log of finished shards, by which an interrupted job continues.

The folder of a job holds ``job.json`` (what is computed), ``ranges.npy`` (of int8 vectors), the
shards, one journal for each process
that works on the job (one, or one per part of ``--shards i/n``), and finally ``manifest.json``.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from simcse_kit.errors import ConfigError
from simcse_kit.utils.files import sha256_of, write_atomic

__all__ = ["JOB", "MANIFEST", "RANGES", "Shard", "ShardLog", "text_checksum"]

JOB, MANIFEST, RANGES = "job.json", "manifest.json", "ranges.npy"
_JOURNALS = "journal-*.jsonl"


@dataclass(frozen=True)
class Shard:
    """A finished shard.

    Attributes:
        shard: Number of the shard, from 0.
        file: File name.
        rows: Number of rows.
        bytes: Size of the file.
        text: SHA-256 of the sentences.
        sha256: SHA-256 of the file.
    """

    shard: int
    file: str
    rows: int
    bytes: int
    text: str
    sha256: str


_SHARD = TypeAdapter(Shard)


def text_checksum(texts: Sequence[str]) -> str:
    """Compute the SHA-256 of sentences in their order."""
    digest = hashlib.sha256()
    for text in texts:
        content = text.encode()
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.hexdigest()


class ShardLog:
    """The finished shards of a job, and the journal of one part.

    Args:
        folder: Folder of the job; created by :meth:`begin`.
        part: Number of the part whose shards are added here, and number of parts.
    """

    def __init__(self, folder: Path, part: tuple[int, int]):
        self.folder = folder
        self._file = folder / f"journal-{part[0]}-of-{part[1]}.jsonl"

    def begin(self, job: dict[str, Any], *, remedy: str) -> None:
        """Reserve the folder for a job, or continue the same job.

        Raises:
            ConfigError: The folder holds another job or other files, or cannot be written.
        """
        path = self.folder / JOB
        try:
            self.folder.mkdir(exist_ok=True)
            if path.exists():
                self._check_same(json.loads(path.read_text(encoding="utf-8")), job, remedy)
                return
            strangers = [entry.name for entry in self.folder.iterdir() if entry.name[0] != "."]
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(f"{self.folder} cannot be used: {reason}; {remedy}") from None
        if strangers:
            raise ConfigError(f"{self.folder} holds other files ({sorted(strangers)[0]}); {remedy}")
        write_atomic(path, json.dumps(job, indent=1) + "\n", remedy=remedy)

    def _check_same(self, before: Any, job: dict[str, Any], remedy: str) -> None:
        before = before if isinstance(before, dict) else {}
        changes = [
            f"{key} was {before.get(key)!r}, is {job.get(key)!r}"
            for key in sorted({*before, *job})
            if before.get(key) != job.get(key)
        ]
        if changes:
            raise ConfigError(
                f"{self.folder} holds a job with other settings: {'; '.join(changes)}; give the "
                f"same settings, or {remedy}"
            )

    def finished(self) -> dict[int, Shard]:
        """Read the finished shards of all parts, by number.

        Incomplete lines, values of a wrong type and names of files outside the folder are skipped,
        and so is a shard whose file is missing or of another size: it is computed again.
        """
        found: dict[int, Shard] = {}
        for path in sorted(self.folder.glob(_JOURNALS)):
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    shard = _SHARD.validate_json(line, strict=True)
                except ValidationError:
                    continue
                # A file with a wrong checksum is removed, so no path may lead out of the folder.
                if Path(shard.file).name == shard.file:
                    found[shard.shard] = shard
        return {
            number: shard
            for number, shard in sorted(found.items())
            if (path := self.folder / shard.file).is_file() and path.stat().st_size == shard.bytes
        }

    def is_intact(self, shard: Shard) -> bool:
        """Read the file of a shard and compare its checksum."""
        return sha256_of(self.folder / shard.file) == shard.sha256

    def add(self, shard: Shard) -> None:
        """Log a shard whose file already has its final name."""
        try:
            with self._file.open("ab") as file:
                # An incomplete last line is ended first.
                if file.tell() and not self._ends_with_newline():
                    file.write(b"\n")
                file.write(json.dumps(asdict(shard)).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            reason = error.strerror or error
            raise ConfigError(
                f"{self._file} cannot be written: {reason}; free disk space, then the same command "
                "continues the job"
            ) from None

    def _ends_with_newline(self) -> bool:
        with self._file.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"
