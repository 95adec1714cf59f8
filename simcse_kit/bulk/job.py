"""Encoding text to vectors on disk, so that what is finished is never computed again."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Any

import numpy as np

from simcse_kit.bulk.finalize import AGAIN, clear, finish
from simcse_kit.bulk.formats import FORMATS
from simcse_kit.bulk.job_lock import REMEDY, claimed, others_at_work
from simcse_kit.bulk.output import Target
from simcse_kit.bulk.shard_log import JOB, Entry, Journal, text_sum
from simcse_kit.encoder.batch_plan import grouped
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.folder.fingerprint import fingerprint
from simcse_kit.encoder.quantization.layer_cache import Precision
from simcse_kit.encoder.stream import CHUNK, stream_vectors
from simcse_kit.encoder.token_counts import TokenCounts
from simcse_kit.errors import ConfigError, ModelError, SimcseError
from simcse_kit.utils.checksums import sha256_of
from simcse_kit.utils.distributed import ALONE, Processes
from simcse_kit.utils.files import free_bytes, replacement

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
        tokens: what tokenizing lost of the sentences computed this time, by
            :class:`~simcse_kit.encoder.token_counts.TokenCounts`.
    """

    output: str
    rows: int
    dim: int
    computed: int
    complete: bool
    sha256: str
    tokens: dict[str, int]


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
        overwrite: start over where the folder holds another job.
        processes: those that share the work; each computes every n-th shard.
        progress: a bar on a terminal or in a notebook.

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
        self._finished: dict[int, Entry] = {}
        self._waiting: deque[tuple[int, int, list[str]]] = deque()
        self._tokens = TokenCounts()
        # What was read, and what was computed.
        self._rows = self._shards = self._computed = 0

    def run(
        self,
        sentences: Iterable[str],
        *,
        total: int | None,
        text_bytes: int,
        overwrite: bool,
        progress: bool,
    ) -> Encoded:
        with ExitStack() as claims:
            if self._processes.first:
                claims.enter_context(claimed(self._target))
            self._processes.agree(lambda: self._begin(overwrite))
            if not self._processes.first:
                claims.enter_context(claimed(self._target))
            return self._run(sentences, total, text_bytes, progress)

    def _run(
        self, sentences: Iterable[str], total: int | None, text_bytes: int, progress: bool
    ) -> Encoded:
        self._finished = self._journal.finished()
        if self._finished:
            logger.info("%d finished shards are kept in %s", len(self._finished), self._target.work)
        done = sum(entry.rows for entry in self._finished.values())
        left = None if total is None else max(0, total - done)
        try:
            if total is not None:
                self._check_room(total, total - done, text_bytes)
            self._compute(sentences, left, progress)
        except SimcseError:
            if not self._journal.finished() and not others_at_work(self._target):
                clear(self._target.work)
            raise
        self._processes.meet()
        digest = self._processes.agree(
            lambda: finish(self._journal, self._target, self._shards, self._rows)
        )
        rows = sum(entry.rows for entry in self._journal.finished().values())
        return Encoded(
            output=str(self._target.path),
            rows=self._rows if digest else rows,
            dim=self._encoder.embedding_dim,
            computed=self._computed,
            complete=digest is not None,
            sha256=digest or "",
            tokens=self._tokens.to_json(),
        )

    def _begin(self, overwrite: bool) -> None:
        work = self._target.work
        if overwrite and (work / JOB).exists():
            if others_at_work(self._target):
                raise ConfigError(
                    f"other processes compute parts of {work}, which --overwrite would remove; "
                    "wait for them or end them"
                )
            clear(work)
        assert self._encoder.source is not None
        job: dict[str, Any] = {
            "version": _VERSION,
            "model": fingerprint(self._encoder.source),
            "pooling": self._encoder.pooling,
            "dim": self._encoder.embedding_dim,
            "format": self._target.format,
            "shard_rows": self._target.shard_rows,
            **asdict(self._settings),
        }
        self._journal.begin(job, remedy=REMEDY)

    def _check_room(self, total: int, left: int, text_bytes: int) -> None:
        row = self._encoder.embedding_dim * self._format.bytes_per_number
        if self._format.has_text and total:
            row += text_bytes / total
        needed = row * (max(0, left) + (total if self._target.one_file else 0))
        free = free_bytes(self._target.path.absolute().parent)
        if needed > free:
            twice = ", shards and joined file together" if self._target.one_file else ""
            raise ConfigError(
                f"--output {self._target.path} needs about {needed / 1e6:,.0f} MB{twice}, and "
                f"there is room for {free / 1e6:,.0f} MB; make room or give another disk"
            )

    def _compute(self, sentences: Iterable[str], left: int | None, progress: bool) -> None:
        """Compute what is missing of this part."""
        vectors = stream_vectors(
            self._encoder,
            self._missing(sentences),
            **asdict(self._settings),
            progress=progress,
            total=None if left is None else left // self._target.part[1],
            counts=self._tokens,
        )
        for first in vectors:
            # Those of the shards to come may be waiting already.
            self._write(*self._waiting.popleft(), chain((first,), vectors))

    def _missing(self, sentences: Iterable[str]) -> Iterator[list[str]]:
        """The sentences of each shard that is to be computed; they wait for their vectors."""
        mine, parts = self._target.part
        shards = grouped(sentences, self._target.shard_rows, _SHARD_CHARACTERS)
        for number, texts in enumerate(shards):
            first_row, self._rows, self._shards = self._rows, self._rows + len(texts), number + 1
            entry = self._finished.get(number)
            if entry is not None and entry.text != text_sum(texts):
                raise ConfigError(
                    f"{self._target.work} was begun with other sentences: rows {first_row + 1:,} "
                    f"to {self._rows:,} differ; give the same text again, or start over with "
                    "--overwrite"
                )
            if entry is None and number % parts == mine - 1:
                self._waiting.append((number, first_row, texts))
                yield texts
            elif number == 0 and self._settings.precision == "int8":
                # The ranges of int8 come from the first sentences that an encoder sees: for equal
                # bytes they must be the first of the text, whoever computes which shard.
                self._encoder.encode(texts[: self._settings.chunk], precision="int8")

    def _write(
        self, number: int, first_row: int, texts: list[str], vectors: Iterator[np.ndarray]
    ) -> None:
        """Write a shard of the vectors that come next, and write it down."""
        name = f"part-{number:06d}{self._format.suffix}"
        with replacement(self._target.work / name, remedy=AGAIN) as path:
            with self._format.writer(path, len(texts), self._encoder.embedding_dim) as write:
                row = 0
                while row < len(texts):
                    part = next(vectors)
                    self._check_finite(part, first_row + row)
                    write(texts[row : row + len(part)], part)
                    row += len(part)
            size, digest = path.stat().st_size, sha256_of(path)
        self._journal.add(Entry(number, name, len(texts), size, text_sum(texts), digest))
        self._computed += len(texts)

    def _check_finite(self, vectors: np.ndarray, row: int) -> None:
        bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(bad):
            raise ModelError(
                f"the vector of sentence {row + int(bad[0]) + 1:,} is not finite; weights of "
                f"{self._encoder.source} are no numbers, or the precision does not serve it"
            )
