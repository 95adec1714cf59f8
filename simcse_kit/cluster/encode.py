"""Bulk encoding on a cluster of Ray, shard by shard, with the files of the local engine."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from simcse_kit.bulk.job import BulkJob, BulkResult
from simcse_kit.bulk.output import OutputSpec
from simcse_kit.bulk.row_ranges import range_starts
from simcse_kit.bulk.shard_encoder import TextShard
from simcse_kit.bulk.shard_log import text_checksum
from simcse_kit.bulk.text_source import TextSource
from simcse_kit.cluster.encode_worker import EncodeWork, Outcome, RowRange, ShardWorker
from simcse_kit.cluster.pool import RayRun, pooled
from simcse_kit.cluster.tasks import failures
from simcse_kit.encoder.encode_options import EncodeOptions, check_size
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.inference import ENCODE_BAR
from simcse_kit.errors import ConfigError
from simcse_kit.utils.files import remove_leftovers
from simcse_kit.utils.progress import progress_bar

__all__ = ["RayJob", "RayResult", "speed_of"]

# Seconds until a shared disk shows a file that another machine has written.
_VISIBLE_WITHIN = 30.0


@dataclass(frozen=True)
class RayResult(BulkResult):
    """The outcome of a job on a cluster.

    Attributes:
        workers: Number of workers; 0 if nothing was missing.
        startup_seconds: Seconds until all workers had begun their first shard.
        rows_per_second: Rows per second from then on; 0 if nothing was computed then.
    """

    workers: int = 0
    startup_seconds: float = 0.0
    rows_per_second: float = 0.0


class RayJob(BulkJob):
    """A job whose shards the workers of a connected cluster encode.

    Folder, shards, log and result are those of :class:`~simcse_kit.bulk.job.BulkJob`, so either
    engine continues a job of the other one.

    Args:
        encoder: Encoder on the CPU, by which the options are checked.
        output: Destination of the vectors, on a disk that all machines share.
        options: How sentences become vectors.
        run: Workers, and how they load the encoder, from
            :func:`~simcse_kit.cluster.pool.ray_run`.
        text: Sentences of files on a disk that all machines share, or at addresses.
        chunk: Maximum number of sentences that a worker holds at a time.
        overwrite: Whether another job in the folder is replaced.
    """

    def __init__(
        self,
        encoder: SentenceEncoder,
        output: OutputSpec,
        options: EncodeOptions,
        run: RayRun,
        text: TextSource,
        *,
        chunk: int,
        overwrite: bool = False,
    ):
        check_size("chunk", chunk)
        super().__init__(encoder, output, options, chunk=chunk, overwrite=overwrite)
        # A lower precision is checked by the workers, since it depends on their devices.
        checked = options if run.pool.device == "cpu" else replace(options, precision="fp32")
        self._length = checked.for_model(encoder).max_length
        self._run_on = run
        self._text = text
        self._outcomes: list[Outcome] = []

    def run(
        self, sentences: Iterable[str], *, total: int | None = None, text_bytes: int = 0
    ) -> RayResult:
        """Encode what is missing; see :meth:`~simcse_kit.bulk.job.BulkJob.run`.

        Raises:
            SimcseError: The cluster failed; finished shards are kept.
        """
        done = super().run(sentences, total=total, text_bytes=text_bytes)
        size = self._run_on.pool.size
        startup, speed = speed_of(self._outcomes, self._run_on.started, size)
        workers = size if self._outcomes else 0
        return RayResult(
            **vars(done), workers=workers, startup_seconds=startup, rows_per_second=speed
        )

    def _compute(self, sentences: Iterable[str], left: int | None) -> None:
        run = self._run_on
        first: list[int] = []
        missing = self._missing(sentences, lambda texts: first.append(len(texts)))
        ranges = self._ranges_of(missing)
        if not ranges:
            return
        # They would count as attempts of this run.
        remove_leftovers(self._output.folder)
        work = EncodeWork(
            model=run.on_workers(self._encoder),
            files=[file.absolute() for file in self._text.files],
            rows=self._rows,
            first_rows=first[0] if first else ranges[0].rows,
            output=replace(self._output, path=self._output.path.absolute()),
            options=self._options,
            chunk=self._chunk,
        )
        shown = self._options.progress
        with (
            failures("encoding", kept="finished shards are kept"),
            progress_bar(left, shown=shown, smoothing=0, **ENCODE_BAR) as bar,
            # Closing ends the workers, also after an error.
            closing(pooled(ShardWorker, work, ranges, run.pool)) as outcomes,
        ):
            for outcome in outcomes:
                if outcome.error is not None:
                    raise outcome.error
                assert outcome.entry is not None
                self._wait_for(self._output.folder / outcome.entry.file, outcome.worker)
                self._add(outcome.entry)
                self._tokens.add(outcome.counts)
                self._outcomes.append(outcome)
                bar.update(outcome.entry.rows)
        self._tokens.say(self._encoder.tokenizer, self._length)

    def _ranges_of(self, shards: Iterable[TextShard]) -> list[RowRange]:
        """Find where the missing shards begin in the text."""
        found = [
            RowRange(
                shard.number,
                shard.first_row,
                len(shard.texts),
                (0, 0),
                text_checksum(shard.texts),
            )
            for shard in shards
        ]
        text = self._text
        starts = range_starts(text.files, text.file_rows, [each.first_row for each in found])
        return [replace(each, start=start) for each, start in zip(found, starts, strict=True)]

    def _wait_for(self, path: Path, worker: str) -> None:
        """Wait until a shared disk shows a file of another machine."""
        until = time.monotonic() + _VISIBLE_WITHIN
        while not path.exists():
            if time.monotonic() > until:
                raise ConfigError(
                    f"{path}, which {worker} has written, does not appear on this machine; give an "
                    "--output on a disk that all machines share"
                )
            time.sleep(0.1)


def speed_of(outcomes: Sequence[Outcome], started: float, size: int) -> tuple[float, float]:
    """Compute the seconds of the start-up, and the rows per second after it.

    Args:
        outcomes: Outcomes of all ranges.
        started: Time when the job was started, in seconds since 1970.
        size: Number of workers; those that replaced others are not waited for.

    Returns:
        Seconds until ``size`` workers had begun, and the rate from then on, in which a range counts
        by the share of its time; both 0 without outcomes.
    """
    begins: dict[str, float] = {}
    for each in outcomes:
        begins[each.worker] = min(each.began, begins.get(each.worker, each.began))
    if not begins:
        return 0.0, 0.0
    ready = sorted(begins.values())[:size][-1]
    seconds = max(each.ended for each in outcomes) - ready
    rows = sum(
        each.entry.rows * (each.ended - max(each.began, ready)) / (each.ended - each.began)
        for each in outcomes
        if each.entry is not None and each.ended > max(each.began, ready)
    )
    return round(ready - started, 2), round(rows / seconds, 1) if seconds > 0 else 0.0
