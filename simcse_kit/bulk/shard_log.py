"""What a job has finished: shards on disk, each with a line in a journal.

A folder of a job holds ``job.json`` (what is computed), the shards, a journal for each of those
that work on it (one, or one for each part of ``--shards i/n``), and at the end ``manifest.json``.
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
from simcse_kit.utils.checksums import sha256_of
from simcse_kit.utils.files import write_whole

__all__ = ["JOB", "MANIFEST", "Entry", "Journal", "text_sum"]

JOB, MANIFEST = "job.json", "manifest.json"
_JOURNALS = "journal-*.jsonl"


@dataclass(frozen=True)
class Entry:
    """A finished shard.

    Attributes:
        shard: its number, from 0.
        file: its name.
        rows: in it.
        bytes: of the file.
        text: SHA-256 of its sentences.
        sha256: of the file.
    """

    shard: int
    file: str
    rows: int
    bytes: int
    text: str
    sha256: str


_ENTRY = TypeAdapter(Entry)


def text_sum(texts: Sequence[str]) -> str:
    """SHA-256 of sentences in their order."""
    digest = hashlib.sha256()
    for text in texts:
        content = text.encode()
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.hexdigest()


class Journal:
    """The folder of a job, as one of those that work on it sees it.

    Args:
        folder: is made if it is not there.
        part: which of the parts of the job is written down here, and of how many.
    """

    def __init__(self, folder: Path, part: tuple[int, int]):
        self.folder = folder
        self._file = folder / f"journal-{part[0]}-of-{part[1]}.jsonl"

    def begin(self, job: dict[str, Any], *, remedy: str) -> None:
        """Claim the folder for a job, or go on with the same job.

        Raises:
            ConfigError: the folder holds another job or other files, or cannot be written.
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
        write_whole(path, json.dumps(job, indent=1) + "\n", remedy=remedy)

    def _check_same(self, before: Any, job: dict[str, Any], remedy: str) -> None:
        before = before if isinstance(before, dict) else {}
        changes = [
            f"{key} was {before.get(key)!r}, is {job.get(key)!r}"
            for key in sorted({*before, *job})
            if before.get(key) != job.get(key)
        ]
        if changes:
            raise ConfigError(
                f"{self.folder} holds a job begun otherwise: {'; '.join(changes)}; give the same "
                f"again, or {remedy}"
            )

    def finished(self) -> dict[int, Entry]:
        """The finished shards by number, whoever finished them.

        A torn line, one with values of a wrong type and one that names a file outside the folder
        are passed over, and so is a shard whose file is missing or of another size: it will be made
        again.
        """
        found: dict[int, Entry] = {}
        for path in sorted(self.folder.glob(_JOURNALS)):
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    entry = _ENTRY.validate_json(line, strict=True)
                except ValidationError:
                    continue
                # The file is removed where its checksum is wrong: no path may lead elsewhere.
                if Path(entry.file).name == entry.file:
                    found[entry.shard] = entry
        return {
            number: entry
            for number, entry in sorted(found.items())
            if (path := self.folder / entry.file).is_file() and path.stat().st_size == entry.bytes
        }

    def is_whole(self, entry: Entry) -> bool:
        """Whether the file of a shard has the content that was written down; reads all of it."""
        return sha256_of(self.folder / entry.file) == entry.sha256

    def add(self, entry: Entry) -> None:
        """Write a shard down, whose file has its final name already."""
        try:
            with self._file.open("ab") as file:
                # After a torn line, a new one.
                if file.tell() and not self._ends_well():
                    file.write(b"\n")
                file.write(json.dumps(asdict(entry)).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            reason = error.strerror or error
            raise ConfigError(
                f"{self._file} cannot be written: {reason}; make room, then the same command goes "
                "on"
            ) from None

    def _ends_well(self) -> bool:
        with self._file.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"
