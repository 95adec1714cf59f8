"""Bulk encoding on a cluster of Ray, shard by shard, with the files of the local engine."""

from __future__ import annotations

import logging
import os
import pickle
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from simcse_kit.bulk.job import BulkJob, BulkResult
from simcse_kit.bulk.output import OutputSpec
from simcse_kit.bulk.row_ranges import range_starts
from simcse_kit.bulk.shard_encoder import TextShard
from simcse_kit.bulk.shard_log import text_checksum
from simcse_kit.cluster.connection import ClusterInfo, connected
from simcse_kit.cluster.encode_worker import EncodeWork, Outcome, RowRange, ShardWorker
from simcse_kit.cluster.tasks import failures
from simcse_kit.encoder.encode_options import EncodeOptions, check_size
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.folder.fingerprint import fingerprint
from simcse_kit.encoder.inference import ENCODE_BAR
from simcse_kit.errors import ConfigError
from simcse_kit.utils.files import remove_leftovers
from simcse_kit.utils.progress import progress_bar

__all__ = ["Pool", "RayJob", "RayResult", "RayRun", "pool_of", "ray_run", "speed_of"]

# Cores of a worker without a GPU. More threads add little to the small matrices of an encoder.
_CORES = 4
# Seconds until a shared disk shows a file that another machine has written.
_VISIBLE_WITHIN = 30.0


@dataclass(frozen=True)
class Pool:
    """The workers of a job.

    Attributes:
        size: Number of workers.
        cpus: CPUs, and threads, of each worker.
        device: Device of the weights, ``"cpu"`` or ``"cuda"``.
    """

    size: int
    cpus: int
    device: str


def pool_of(cluster: ClusterInfo, device: str, workers: int | None) -> Pool:
    """Choose the workers: one for each GPU, or for each group of CPUs.

    Args:
        cluster: Size of the cluster.
        device: ``"auto"`` for GPUs if there are any, ``"cpu"`` or ``"cuda"``.
        workers: Number of workers; None for all GPUs, or one for four CPUs and at least two.

    Raises:
        ConfigError: The cluster has no GPU, or too few CPUs or GPUs.

    Examples:
        >>> pool_of(ClusterInfo(nodes=1, cpus=16, gpus=0), "auto", None)
        Pool(size=4, cpus=4, device='cpu')
        >>> pool_of(ClusterInfo(nodes=2, cpus=64, gpus=8), "auto", None)
        Pool(size=8, cpus=8, device='cuda')
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(
            f"--device {device}: Ray assigns the devices; give auto, cpu or cuda, or use --engine "
            "local"
        )
    if device == "cuda" and not cluster.gpus:
        raise ConfigError("--device cuda: the cluster has no GPU; give --device cpu")
    gpu = device != "cpu" and cluster.gpus > 0
    most = cluster.gpus if gpu else cluster.cpus
    if workers is not None and not 1 <= workers <= most:
        raise ConfigError(
            f"--workers {workers}: the cluster has {most} {'GPUs' if gpu else 'CPUs'}; allowed: 1 "
            f"to {most}"
        )
    size = workers or (most if gpu else max(min(2, most), most // _CORES))
    return Pool(size, max(1, cluster.cpus // size), "cuda" if gpu else "cpu")


@dataclass(frozen=True)
class RayRun:
    """The workers of a connected cluster, and what they read.

    Attributes:
        pool: Workers.
        source: Path of the text, on a disk that all machines share.
        model: Folder or name from which workers load the encoder.
        loading: Further arguments of ``SentenceEncoder.load``, except the device.
        started: Time when the connection was started, in seconds since 1970.
    """

    pool: Pool
    source: str
    model: str
    loading: dict[str, Any]
    started: float


@contextmanager
def ray_run(
    engine: str,
    source: str,
    model: str,
    loading: dict[str, Any],
    device: str = "auto",
    workers: int | None = None,
) -> Iterator[RayRun]:
    """Connect to a cluster and choose its workers.

    Args:
        engine: ``ray`` for workers on this machine, which end afterwards, or ``ray:ADDRESS``.
        source: Path of the text.
        model: Folder or name of the encoder.
        loading: Further arguments of ``SentenceEncoder.load``, except the device.
        device: See :func:`pool_of`.
        workers: See :func:`pool_of`.

    Raises:
        ConfigError: No cluster answers, or it has too few CPUs or GPUs.
        MissingExtraError: Ray is not installed.
    """
    started = time.time()
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    with connected(engine, cpus) as cluster:
        pool = pool_of(cluster, device, workers)
        folder = Path(model)
        place = str(folder.absolute()) if folder.is_dir() else model
        yield RayRun(pool, str(Path(source).absolute()), place, loading, started)


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
        run: Workers, and what they read, from :func:`ray_run`.
        chunk: Maximum number of sentences that a worker holds at a time.
        overwrite: Whether another job in the folder is replaced.
    """

    def __init__(
        self,
        encoder: SentenceEncoder,
        output: OutputSpec,
        options: EncodeOptions,
        run: RayRun,
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
        assert self._encoder.source is not None
        # They would count as attempts of this run.
        remove_leftovers(self._output.folder)
        work = EncodeWork(
            model=run.model,
            loading=run.loading | {"device": run.pool.device},
            fingerprint=fingerprint(self._encoder.source),
            source=run.source,
            rows=self._rows,
            first_rows=first[0] if first else ranges[0].rows,
            output=replace(self._output, path=self._output.path.absolute()),
            options=self._options,
            chunk=self._chunk,
            threads=run.pool.cpus,
        )
        shown = self._options.progress
        with (
            failures("encoding", kept="finished shards are kept"),
            progress_bar(left, shown=shown, smoothing=0, **ENCODE_BAR) as bar,
            # Closing ends the workers, also after an error.
            closing(_outcomes(ranges, work, run.pool)) as outcomes,
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
            RowRange(shard.number, shard.first_row, len(shard.texts), 0, text_checksum(shard.texts))
            for shard in shards
        ]
        starts = range_starts(self._run_on.source, (each.first_row for each in found))
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


def _outcomes(
    ranges: list[RowRange], work: EncodeWork, pool: Pool
) -> Generator[Outcome, None, None]:
    """Yield the outcomes of ranges as they end, from a pool of workers of Ray Data.

    Ray Data restarts workers that were killed, and gives their ranges to others.
    """
    data = import_module("ray.data")
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    items = [{"range": pickle.dumps(each)} for each in ranges]
    dataset = data.from_items(items, override_num_blocks=len(items)).map_batches(
        ShardWorker,
        fn_constructor_args=(work,),
        batch_size=1,
        batch_format="numpy",
        compute=data.ActorPoolStrategy(
            size=min(pool.size, len(items)), max_tasks_in_flight_per_actor=2
        ),
        num_cpus=pool.cpus,
        num_gpus=1 if pool.device == "cuda" else None,
    )
    for batch in dataset.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0):
        for outcome in batch["outcome"]:
            yield pickle.loads(outcome)


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
