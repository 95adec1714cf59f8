"""Encoding of large texts in shards, so that an interrupted job continues where it stopped."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain

from simcse_kit.bulk.finalize import finalize, remove_files
from simcse_kit.bulk.formats import FORMATS
from simcse_kit.bulk.job_lock import REMEDY, job_locked, others_at_work
from simcse_kit.bulk.output import OutputSpec
from simcse_kit.bulk.settings import job_settings
from simcse_kit.bulk.shard_encoder import (
    CALIBRATION,
    SHARD_CHARACTERS,
    ShardEncoder,
    TextShard,
)
from simcse_kit.bulk.shard_log import JOB, Shard, ShardLog, text_checksum
from simcse_kit.encoder.batch_plan import grouped
from simcse_kit.encoder.encode_options import EncodeOptions, check_dimensions
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.prompts import chosen_prompt
from simcse_kit.encoder.stream import CHUNK
from simcse_kit.encoder.token_counts import TokenCounts
from simcse_kit.errors import ConfigError, SimcseError
from simcse_kit.metrics.vector_precision import vector_dtype
from simcse_kit.utils.distributed import ALONE, Processes
from simcse_kit.utils.files import free_bytes

__all__ = ["BulkJob", "BulkResult"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BulkResult:
    """The outcome of a job.

    Attributes:
        output: The file or folder.
        rows: Number of rows of the whole output, or of the finished shards if it is incomplete.
        dim: Number of dimensions of a vector, before eight of them share a byte.
        computed: Number of rows computed by this call; the others existed before.
        complete: Whether the whole output exists and is verified.
        sha256: SHA-256 of the file, or of the manifest of a folder; empty if incomplete.
        tokens: What tokenizing lost of the sentences computed by this call, see
            :class:`~simcse_kit.encoder.token_counts.TokenCounts`.
    """

    output: str
    rows: int
    dim: int
    computed: int
    complete: bool
    sha256: str
    tokens: dict[str, int]


class BulkJob:
    """A job that encodes sentences to vectors on disk, shard by shard.

    Each shard is logged when it is on disk. The same job after an interruption continues: the text
    of finished shards is read and compared, and nothing is computed twice. Finally the checksum of
    every shard is verified; if the output is one file, the shards are joined, and the file is read
    again and compared.

    Args:
        encoder: Encoder, loaded from a folder or by its name, which identifies the model.
        output: Destination of the vectors.
        options: How sentences become vectors; they identify the job, except ``token_budget`` and
            ``progress``. The device does not, because fp32 vectors agree within 1e-5 on all of
            them.
        chunk: Maximum number of sentences held at a time.
        overwrite: Whether another job in the folder is replaced.
        processes: Processes that share the work; each computes every n-th shard.

    Raises:
        ConfigError: The encoder has no folder, or several processes get one part of a job.

    Examples:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from simcse_kit import SentenceEncoder
        >>> from simcse_kit.bulk.output import OutputSpec
        >>> from simcse_kit.encoder.encode_options import EncodeOptions
        >>> encoder = SentenceEncoder.load("mini")
        >>> with TemporaryDirectory() as folder:
        ...     output = OutputSpec.of(str(Path(folder) / "vectors.npy"))
        ...     job = BulkJob(encoder, output, EncodeOptions(normalize=True))
        ...     result = job.run(["A dog runs.", "Prices rose."])
        >>> result.rows, result.dim, result.complete
        (2, 256, True)
    """

    def __init__(
        self,
        encoder: SentenceEncoder,
        output: OutputSpec,
        options: EncodeOptions,
        *,
        chunk: int = CHUNK,
        overwrite: bool = False,
        processes: Processes = ALONE,
    ):
        if processes.size > 1:
            if output.part[1] > 1:
                raise ConfigError(
                    "--shards is for separate jobs; torchrun already divides the work; leave "
                    "one of them out"
                )
            output = replace(output, part=(processes.rank + 1, processes.size))
        if encoder.source is None:
            raise ConfigError(
                "the encoder has no folder that identifies the model; save the encoder and load it"
            )
        self._encoder = encoder
        self._output = output
        check_dimensions(options.truncate_dim, encoder.embedding_dim)
        prompt = chosen_prompt(encoder, options.prompt, options.prompt_name)
        self._options = replace(options, prompt=prompt, prompt_name=None)
        self._dim = options.dimensions(encoder)
        self._chunk = chunk
        self._overwrite = overwrite
        self._processes = processes
        self._format = FORMATS[output.format]
        self._log = ShardLog(output.folder, output.part)
        self._finished: dict[int, Shard] = {}
        self._tokens = TokenCounts()
        # Numbers of rows and shards read, and of rows computed.
        self._rows = self._shards = self._computed = 0

    def run(
        self, sentences: Iterable[str], *, total: int | None = None, text_bytes: int = 0
    ) -> BulkResult:
        """Encode what is missing.

        Args:
            sentences: Sentences in the order of the rows, the same ones in every call.
            total: Number of sentences, if known.
            text_bytes: Approximate size of their text, for the estimate of disk use.

        Raises:
            ConfigError: The folder holds something else, the disk is too small or cannot be
                written, or the sentences differ from those of the interrupted job.
            DataError: A sentence cannot be read; finished shards are kept.
            ModelError: A vector is not finite.
        """
        with ExitStack() as locks:
            if self._processes.first:
                locks.enter_context(job_locked(self._output))
            self._processes.from_first(self._begin)
            if not self._processes.first:
                locks.enter_context(job_locked(self._output))
            return self._run(sentences, total, text_bytes)

    def _run(self, sentences: Iterable[str], total: int | None, text_bytes: int) -> BulkResult:
        folder = self._output.folder
        self._finished = self._log.finished()
        left = None
        if self._finished:
            logger.info("%d finished shards are kept in %s", len(self._finished), folder)
        try:
            if total is not None:
                left = max(0, total - sum(shard.rows for shard in self._finished.values()))
                self._check_disk_space(total, left, text_bytes)
            self._compute(sentences, left)
        except SimcseError:
            if not self._log.finished() and not others_at_work(self._output):
                remove_files(folder)
            raise
        self._processes.barrier()
        digest = self._processes.from_first(
            lambda: finalize(self._log, self._output, self._shards, self._rows)
        )
        finished = sum(shard.rows for shard in self._log.finished().values())
        return BulkResult(
            output=str(self._output.path),
            rows=self._rows if digest else finished,
            dim=self._dim,
            computed=self._computed,
            complete=digest is not None,
            sha256=digest or "",
            tokens=self._tokens.to_json(),
        )

    def _begin(self) -> None:
        folder = self._output.folder
        if self._overwrite and (folder / JOB).exists():
            if others_at_work(self._output):
                raise ConfigError(
                    f"other processes compute parts of {folder}, which --overwrite would remove; "
                    "wait for them or end them"
                )
            remove_files(folder)
        settings = job_settings(
            self._encoder, self._output, self._options, chunk=self._chunk, dim=self._dim
        )
        self._log.begin(settings, remedy=REMEDY)

    def _check_disk_space(self, total: int, left: int, text_bytes: int) -> None:
        row = vector_dtype(self._output.precision, self._dim).itemsize * self._format.size
        if self._format.has_text and total:
            row += text_bytes / total
        needed = row * (left + (total if self._output.one_file else 0))
        free = free_bytes(self._output.path.absolute().parent)
        if needed > free:
            twice = " for the shards and the joined file together" if self._output.one_file else ""
            raise ConfigError(
                f"--output {self._output.path} needs about {needed / 1e6:,.0f} MB{twice}, and the "
                f"disk has {free / 1e6:,.0f} MB free; free disk space or use another disk"
            )

    def _compute(self, sentences: Iterable[str], left: int | None) -> None:
        """Compute, write and log the missing shards of this part."""
        shards = ShardEncoder(self._encoder, self._output, self._options, chunk=self._chunk)
        sentences = iter(sentences)
        first: list[str] = []

        def beginning() -> list[str]:
            first.extend(next(grouped(sentences, CALIBRATION, SHARD_CHARACTERS), []))
            return first

        shards.find_ranges(beginning)
        entries = shards.encode(
            self._missing(chain(first, sentences), shards.calibrate),
            total=None if left is None else left // self._output.part[1],
            counts=self._tokens,
        )
        for entry in entries:
            self._add(entry)

    def _add(self, entry: Shard) -> None:
        """Log a shard that is on disk."""
        self._log.add(entry)
        self._computed += entry.rows

    def _missing(
        self, sentences: Iterable[str], skipped_first: Callable[[list[str]], object]
    ) -> Iterator[TextShard]:
        """Read all sentences, and yield the shards that this part has to compute.

        Args:
            sentences: All sentences.
            skipped_first: Function that gets the sentences of the first shard, if this part does
                not compute it.
        """
        mine, parts = self._output.part
        lists = grouped(sentences, self._output.shard_rows, SHARD_CHARACTERS)
        for number, texts in enumerate(lists):
            first_row, self._rows, self._shards = self._rows, self._rows + len(texts), number + 1
            finished = self._finished.get(number)
            if finished is not None and finished.text != text_checksum(texts):
                raise ConfigError(
                    f"{self._output.folder} was started with other sentences: rows "
                    f"{first_row + 1:,} to {self._rows:,} differ; give the same text again, or "
                    "start over with --overwrite"
                )
            if finished is None and number % parts == mine - 1:
                yield TextShard(number, first_row, texts)
            elif number == 0:
                skipped_first(texts)
