"""A worker of a cluster that encodes ranges of a text and writes their shards."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from simcse_kit.bulk.finalize import CONTINUE
from simcse_kit.bulk.output import OutputSpec
from simcse_kit.bulk.row_ranges import RangeReader, RangeStart
from simcse_kit.bulk.sentence_files import SentenceFile
from simcse_kit.bulk.shard_encoder import (
    CALIBRATION,
    SHARD_CHARACTERS,
    ShardEncoder,
    TextShard,
)
from simcse_kit.bulk.shard_log import JOB, Shard, text_checksum
from simcse_kit.cluster.worker_model import WorkerModel, shown_error, worker_name
from simcse_kit.encoder.batch_plan import grouped
from simcse_kit.encoder.encode_options import EncodeOptions
from simcse_kit.encoder.token_counts import TokenCounts
from simcse_kit.errors import ConfigError, DataError, SimcseError

__all__ = ["EncodeWork", "Outcome", "RowRange", "ShardWorker"]

# Ranges at which that many workers ended, one after the other, end the job.
_ATTEMPTS = 8
_LESS_MEMORY = (
    "finished shards are kept; continue with a smaller --chunk, --batch-size or number of --workers"
)


@dataclass(frozen=True)
class RowRange:
    """The rows of a shard.

    Attributes:
        number: Number of the shard, from 0.
        first_row: Number of the first row, from 0.
        rows: Number of rows.
        start: Where the first row begins in the files.
        text: SHA-256 of the sentences.
    """

    number: int
    first_row: int
    rows: int
    start: RangeStart
    text: str


@dataclass(frozen=True)
class EncodeWork:
    """What a worker needs for any shard of a job.

    Attributes:
        model: The encoder.
        files: Files of the sentences.
        rows: Number of sentences.
        first_rows: Number of rows of the first shard.
        output: Destination of the vectors.
        options: How sentences become vectors, with the text of the prompt.
        chunk: Maximum number of sentences held at a time.
    """

    model: WorkerModel
    files: Sequence[SentenceFile]
    rows: int
    first_rows: int
    output: OutputSpec
    options: EncodeOptions
    chunk: int


@dataclass(frozen=True)
class Outcome:
    """What a worker returns for a range.

    Attributes:
        worker: Machine and process id.
        entry: Log entry of the shard; None after an error.
        counts: What tokenizing lost.
        began: Time when the worker began with the range, in seconds since 1970.
        ended: Time when the shard was on disk.
        error: Error that ends the job.
    """

    worker: str
    entry: Shard | None
    counts: TokenCounts
    began: float
    ended: float
    error: SimcseError | None = None


class ShardWorker:
    """Function of a batch of one range, for ``map_batches`` of Ray Data.

    Errors that the user can fix are returned as outcomes, because Ray would retry and log
    exceptions.

    Args:
        work: What is the same for all shards.
    """

    def __init__(self, work: EncodeWork):
        self._work = work
        self._reader = RangeReader(work.files)
        self._worker = worker_name()
        self._shards: ShardEncoder | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Encode the range in the column ``item``; the column ``result`` has the outcome."""
        rows: RowRange = pickle.loads(batch["item"][0])
        counts, began = TokenCounts(), time.time()
        entry = failure = None
        try:
            with self._attempt(rows):
                if self._shards is None:
                    self._shards = self._prepared()
                    began = time.time()
                entry = self._encode(self._shards, rows, counts)
        except Exception as error:
            failure = shown_error(error, _LESS_MEMORY)
        outcome = Outcome(self._worker, entry, counts, began, time.time(), failure)
        return {"result": [pickle.dumps(outcome)]}

    @contextmanager
    def _attempt(self, rows: RowRange) -> Iterator[None]:
        """Count the attempts at a range in a file, because Ray tries a range without end.

        Raises:
            SimcseError: Too many workers ended while they encoded the range.
        """
        folder = self._work.output.folder
        if not (folder / JOB).is_file():
            raise ConfigError(
                f"the folder {folder} does not exist on {self._worker}; give an --output on a disk "
                "that all machines share"
            )
        # A name of temporary files, which the next run removes.
        path = folder / f".{rows.number:016x}.tmp"
        try:
            with path.open("ab") as file:
                file.write(b".")
                attempts = file.tell()
        except OSError as error:
            raise ConfigError(f"{folder} cannot be written: {error.strerror}; {CONTINUE}") from None
        if attempts > _ATTEMPTS:
            raise SimcseError(
                f"rows {rows.first_row + 1:,} to {rows.first_row + rows.rows:,}: {_ATTEMPTS} "
                "workers ended while they encoded them, probably because the memory was used up; "
                "finished shards are kept; continue with fewer --workers"
            )
        try:
            yield
        finally:
            path.unlink(missing_ok=True)

    def _prepared(self) -> ShardEncoder:
        """Load the encoder, and calibrate it as the local engine does."""
        work = self._work
        encoder = work.model.load()
        options = replace(work.options, progress=False)
        shards = ShardEncoder(encoder, work.output, options, chunk=work.chunk)

        def beginning() -> list[str]:
            first = self._reader.read((0, 0), min(CALIBRATION, work.rows))
            return next(grouped(first, CALIBRATION, SHARD_CHARACTERS), [])

        shards.find_ranges(beginning)
        if options.precision == "int8":
            shards.calibrate(self._reader.read((0, 0), work.first_rows))
        return shards

    def _encode(self, shards: ShardEncoder, rows: RowRange, counts: TokenCounts) -> Shard:
        texts = self._reader.read(rows.start, rows.rows)
        if text_checksum(texts) != rows.text:
            raise DataError(
                f"rows {rows.first_row + 1:,} to {rows.first_row + rows.rows:,} differ on "
                f"{self._worker} from those that this command read; do not change the file while "
                "it is encoded, and give all machines the same file",
                file=self._work.files[rows.start[0]].name,
            )
        shard = TextShard(rows.number, rows.first_row, texts)
        (entry,) = shards.encode([shard], total=None, counts=counts)
        return entry
