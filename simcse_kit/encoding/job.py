"""Encoding text to vectors on disk, so that what is finished is never computed again."""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from simcse_kit.atomic import free_bytes, move, remove_leftovers, replacement, write_whole
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.fingerprint import fingerprint
from simcse_kit.encoder.precision.lower import Precision
from simcse_kit.encoder.stream import CHUNK
from simcse_kit.encoding.formats import FORMATS, sum_of
from simcse_kit.encoding.journal import JOB, MANIFEST, Entry, Journal, text_sum
from simcse_kit.encoding.target import Target
from simcse_kit.errors import ConfigError, ModelError, SimcseError
from simcse_kit.processes import ALONE, Processes

__all__ = ["Encoded", "Settings", "encode_to"]

logger = logging.getLogger(__name__)

# Sentences may be a million characters long; so many characters end a shard as well.
_SHARD_CHARACTERS = 64_000_000
_VERSION = 1


@dataclass(frozen=True)
class Settings:
    """How sentences become vectors; part of what makes two jobs the same.

    Attributes: as for :meth:`~simcse_kit.encoder.encoder.SentenceEncoder.encode_stream`.
    """

    chunk: int = CHUNK
    batch_size: int | None = None
    max_length: int | None = None
    normalize: bool = False
    precision: Precision = "fp32"


@dataclass(frozen=True)
class Encoded:
    """What a job gave.

    Attributes:
        output: the file or folder.
        rows: of the whole output; of this part where others are not finished.
        dim: width of a vector.
        computed: rows computed this time; the others were there.
        complete: whether the whole output is there, and verified.
        sha256: of the file, or of the manifest of a folder; empty where it is not complete.
    """

    output: str
    rows: int
    dim: int
    computed: int
    complete: bool
    sha256: str


def encode_to(
    encoder: SentenceEncoder,
    sentences: Iterable[str],
    target: Target,
    settings: Settings,
    *,
    total: int | None = None,
    text_bytes: int = 0,
    overwrite: bool = False,
    processes: Processes = ALONE,
    progress: bool = False,
) -> Encoded:
    """Encode sentences in shards, each written down in a journal once the disk holds it.

    The same call after an interruption goes on: finished shards are read over, not computed. In the
    end every shard is held against its checksum, one file is made of them if one is wanted, and it
    is read again and compared.

    Args:
        encoder: opened from a folder or by its name, so that a job knows its model again.
        sentences: in the order of the rows; the same ones each time.
        target: where the vectors go.
        settings: how they are made.
        total: number of sentences, if known.
        text_bytes: about the bytes of their text, for the estimate of disk use.
        overwrite: begin anew where the folder holds another job.
        processes: those that share the work; each computes every n-th shard.
        progress: a bar on stderr, where that is a terminal.

    Raises:
        ConfigError: the folder holds something else, there is too little room, it cannot be
            written, or the sentences are not those that the job was begun with.
        DataError: a sentence cannot be read; what is finished is kept.
        ModelError: a vector is not finite.
    """
    if processes.size > 1:
        if target.part[1] > 1:
            raise ConfigError("--shards is for jobs apart; torchrun shares out the work by itself")
        target = replace(target, part=(processes.rank + 1, processes.size))
    return _Job(encoder, target, settings, processes).run(
        sentences, total=total, text_bytes=text_bytes, overwrite=overwrite, progress=progress
    )


class _Job:
    def __init__(
        self, encoder: SentenceEncoder, target: Target, settings: Settings, processes: Processes
    ):
        if encoder.source is None:
            raise ConfigError("save the encoder and load it again, so that a job knows its model")
        self._encoder = encoder
        self._target = target
        self._settings = settings
        self._processes = processes
        self._format = FORMATS[target.format]
        self._journal = Journal(target.work, target.part)
        self._dim = encoder.embedding_dim
        self._finished: dict[int, Entry] = {}
        self._seen = self._ours = self._computed = 0

    def run(
        self,
        sentences: Iterable[str],
        *,
        total: int | None,
        text_bytes: int,
        overwrite: bool,
        progress: bool,
    ) -> Encoded:
        self._processes.agree(lambda: self._begin(overwrite))
        self._finished = self._journal.finished()
        if self._finished:
            logger.info("%d finished shards are kept in %s", len(self._finished), self._target.work)
        try:
            if total is not None:
                self._check_room(total, text_bytes)
            shards = self._compute(sentences, self._ours_of(total), progress)
        except SimcseError:
            if self._processes.size == 1 and not self._journal.finished():
                _clear(self._target.work)
            raise
        self._processes.meet()
        return self._processes.agree(lambda: self._end(shards))

    def _begin(self, overwrite: bool) -> None:
        work, remedy = self._target.work, "begin anew with --overwrite, or give another --output"
        if overwrite and (work / JOB).exists():
            _clear(work)
        settings = asdict(self._settings)
        assert self._encoder.source is not None
        job: dict[str, Any] = {
            "version": _VERSION,
            "model": fingerprint(self._encoder.source),
            "pooling": self._encoder.pooling,
            "dim": self._dim,
            "format": self._target.format,
            "shard_rows": self._target.shard_rows,
            **settings,
        }
        self._journal.begin(job, remedy=remedy)

    def _check_room(self, total: int, text_bytes: int) -> None:
        left = max(0, total - sum(entry.rows for entry in self._finished.values()))
        number = self._dim * self._format.bytes_per_number
        text = text_bytes / total if self._format.has_text and total else 0.0
        parts = left * (number + text)
        needed = int(parts + (total * (number + text) if self._target.one_file else 0))
        free = free_bytes(self._target.path.absolute().parent)
        if needed > free:
            twice = ", shards and joined file together" if self._target.one_file else ""
            raise ConfigError(
                f"--output {self._target.path} needs about {needed / 1e6:,.0f} MB{twice}, and "
                f"there is room for {free / 1e6:,.0f} MB; make room or give another disk"
            )

    def _ours_of(self, total: int | None) -> int | None:
        """Sentences left to this process, about, for the time left."""
        if total is None:
            return None
        done = sum(entry.rows for entry in self._finished.values())
        return max(0, total - done) // self._target.part[1]

    def _compute(self, sentences: Iterable[str], ours: int | None, progress: bool) -> int:
        """Compute what is missing of this part; the number of shards of the whole."""
        counted = [0]
        waiting: deque[tuple[int, int, list[str]]] = deque()
        vectors = self._encoder.encode_groups(
            self._missing(sentences, waiting, counted),
            **asdict(self._settings),
            progress=progress,
            total=ours,
        )
        for part in vectors:
            # Those of the shards to come may be waiting already.
            self._write(*waiting.popleft(), part, vectors)
        return counted[0]

    def _missing(
        self,
        sentences: Iterable[str],
        waiting: deque[tuple[int, int, list[str]]],
        counted: list[int],
    ) -> Iterator[list[str]]:
        """The sentences of each shard that is to be computed; they wait for their vectors."""
        first_row, (mine, parts) = 0, self._target.part
        for number, texts in enumerate(_shards(sentences, self._target.shard_rows)):
            counted[0] = number + 1
            self._seen += len(texts)
            entry = self._finished.get(number)
            if entry is not None and entry.text != text_sum(texts):
                raise ConfigError(
                    f"{self._target.work} was begun with other sentences: rows {first_row + 1:,} "
                    f"to {first_row + len(texts):,} differ; give the same text again, or "
                    "begin anew with --overwrite"
                )
            if entry is None and number % parts == mine - 1:
                waiting.append((number, first_row, texts))
                yield texts
            elif number == 0 and self._settings.precision == "int8":
                # The ranges of int8 come from the first sentences that an encoder sees: for equal
                # bytes they must be the first of the text, whoever computes which shard.
                self._encoder.encode(texts[: self._settings.chunk], precision="int8")
            first_row += len(texts)

    def _write(
        self,
        number: int,
        first_row: int,
        texts: list[str],
        part: np.ndarray,
        more: Iterator[np.ndarray],
    ) -> None:
        """Write a shard from its first vectors and those that come next, and write it down."""
        name = f"part-{number:06d}{self._format.suffix}"
        path = self._target.work / name
        remedy = "make room, then the same command goes on"
        with ExitStack() as files:
            temporary = files.enter_context(replacement(path, remedy=remedy))
            with self._format.writer(temporary, len(texts), self._dim) as write:
                row = 0
                while True:
                    self._check_finite(part, first_row + row)
                    write(texts[row : row + len(part)], part)
                    row += len(part)
                    if row >= len(texts):
                        break
                    part = next(more)
            size, digest = temporary.stat().st_size, sum_of(temporary)
        self._journal.add(Entry(number, name, len(texts), size, text_sum(texts), digest))
        self._computed += len(texts)

    def _check_finite(self, vectors: np.ndarray, row: int) -> None:
        bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(bad):
            raise ModelError(
                f"the vector of sentence {row + int(bad[0]) + 1:,} is not finite; weights of "
                f"{self._encoder.source} are no numbers, or the precision does not serve it"
            )

    def _end(self, shards: int) -> Encoded:
        """Verify, and join, what is complete. Called by the first process alone."""
        target, work = self._target, self._target.work
        finished = self._journal.finished()
        entries = [finished[number] for number in range(shards) if number in finished]
        rows = sum(entry.rows for entry in entries)
        if len(entries) < shards:
            return Encoded(str(target.path), rows, self._dim, self._computed, False, "")
        for entry in entries:
            if not self._journal.is_whole(entry):
                (work / entry.file).unlink()
                raise ConfigError(
                    f"{work / entry.file} is not as it was written, and was removed; look at the "
                    "disk, then the same command makes it anew"
                )
        if rows != self._seen:
            raise ConfigError(
                f"{work} holds {rows:,} rows for {self._seen:,} sentences; begin anew with "
                "--overwrite"
            )
        parts = [work / entry.file for entry in entries]
        remove_leftovers(work)
        if not target.one_file:
            digest = self._write_manifest(entries, rows)
            return Encoded(str(target.path), rows, self._dim, self._computed, True, digest)
        remedy = "make room, then the same command goes on"
        # Among the shards, so that nothing is left beside the target by a kill.
        whole = work / f"whole{self._format.suffix}"
        with replacement(whole, remedy=remedy) as path:
            self._format.join(parts, path, rows, self._dim)
            counted = self._format.count(path) == rows
            if not counted or not self._format.holds(path, parts, rows, self._dim):
                raise ConfigError(
                    f"{target.path}: what the disk gives back is not what was written; look at the "
                    f"disk; the shards are kept in {work}"
                )
            digest = sum_of(path)
        move(whole, target.path, remedy=remedy)
        _clear(work)
        return Encoded(str(target.path), rows, self._dim, self._computed, True, digest)

    def _write_manifest(self, entries: list[Entry], rows: int) -> str:
        job = json.loads((self._target.work / JOB).read_text(encoding="utf-8"))
        shards = [asdict(entry) for entry in entries]
        document = {"rows": rows, "dtype": "float32", **job, "shards": shards}
        path = self._target.work / MANIFEST
        write_whole(path, json.dumps(document, indent=1) + "\n")
        return sum_of(path)


def _shards(sentences: Iterable[str], rows: int) -> Iterator[list[str]]:
    texts: list[str] = []
    characters = 0
    for sentence in sentences:
        texts.append(sentence)
        characters += len(sentence)
        if len(texts) >= rows or characters >= _SHARD_CHARACTERS:
            yield texts
            texts, characters = [], 0
    if texts:
        yield texts


def _clear(work: Path) -> None:
    """Remove the files of a job, and the folder if nothing else is in it."""
    remove_leftovers(work)
    mine = ("part-*", "whole.*", "journal-*.jsonl", MANIFEST, JOB)
    for pattern in mine:
        for path in work.glob(pattern):
            path.unlink(missing_ok=True)
    if not any(work.iterdir()):
        work.rmdir()
