"""Workers of a cluster that hold an encoder: their number, and what they return."""

from __future__ import annotations

import logging
import os
import pickle
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from simcse_kit.cluster.connection import ClusterInfo, connected
from simcse_kit.cluster.worker_model import WorkerModel
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.folder.fingerprint import fingerprint
from simcse_kit.errors import ConfigError

__all__ = ["Pool", "RayRun", "pool_of", "pooled", "ray_run"]

# Cores of a worker without a GPU. More threads add little to the small matrices of an encoder.
_CORES = 4


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
        model: Folder or name from which workers load the encoder.
        loading: Further arguments of ``SentenceEncoder.load``, except the device.
        started: Time when the connection was started, in seconds since 1970.
    """

    pool: Pool
    model: str
    loading: dict[str, Any]
    started: float

    def on_workers(self, encoder: SentenceEncoder) -> WorkerModel:
        """Describe an encoder of this process for the workers, which load it themselves."""
        assert encoder.source is not None
        return WorkerModel(
            self.model,
            self.loading | {"device": self.pool.device},
            fingerprint(encoder.source),
            self.pool.cpus,
        )


@contextmanager
def ray_run(
    engine: str,
    model: str,
    loading: dict[str, Any],
    device: str = "auto",
    workers: int | None = None,
) -> Iterator[RayRun]:
    """Connect to a cluster and choose its workers.

    Args:
        engine: ``ray`` for workers on this machine, which end afterwards, or ``ray:ADDRESS``.
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
        yield RayRun(pool, place, loading, started)


def pooled(worker: type, work: Any, items: Sequence[Any], pool: Pool) -> Generator[Any, None, None]:
    """Yield the results of items as they end, from a pool of workers of Ray Data.

    Ray Data restarts workers that were killed, and gives their items to others.

    Args:
        worker: Class that is called with a batch of one pickled item in the column ``item``, and
            returns its pickled result in the column ``result``.
        work: Argument of its constructor.
        items: The items; there must be one.
        pool: The workers.
    """
    data = import_module("ray.data")
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    rows = [{"item": pickle.dumps(each)} for each in items]
    dataset = data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        worker,
        fn_constructor_args=(work,),
        batch_size=1,
        batch_format="numpy",
        compute=data.ActorPoolStrategy(
            size=min(pool.size, len(rows)), max_tasks_in_flight_per_actor=2
        ),
        num_cpus=pool.cpus,
        num_gpus=1 if pool.device == "cuda" else None,
    )
    for batch in dataset.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0):
        for result in batch["result"]:
            yield pickle.loads(result)
