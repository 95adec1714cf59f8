"""Connection to a cluster of Ray, or to workers of Ray on this machine."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from simcse_kit import __version__
from simcse_kit.errors import ConfigError, MissingExtraError

__all__ = ["ClusterInfo", "connected", "parse_engine"]

_ANSWERS_WITHIN = 5.0  # seconds
# Ray takes 30 % of the memory by default. More objects are spilled to disk.
_LOCAL_STORE = 1_000_000_000


@dataclass(frozen=True, slots=True)
class ClusterInfo:
    """Size of a connected cluster.

    Attributes:
        nodes: Number of machines.
        cpus: Number of CPUs that tasks can use.
        gpus: Number of GPUs.
    """

    nodes: int
    cpus: int
    gpus: int


def parse_engine(text: str) -> str | None:
    """Check the option ``--engine``.

    Returns:
        None for ``local``; otherwise the text, for :func:`connected`.

    Raises:
        ConfigError: The text has another form.

    Examples:
        >>> parse_engine("ray:10.0.0.1:6379")
        'ray:10.0.0.1:6379'
        >>> parse_engine("local")
    """
    if text == "local":
        return None
    name, colon, address = text.partition(":")
    if name != "ray" or (colon and not address):
        raise ConfigError(
            f"--engine is {text!r}; allowed: local, ray, or ray:ADDRESS, such as ray:10.0.0.1:6379"
        )
    return text


@contextmanager
def connected(engine: str = "ray", workers: int | None = None) -> Iterator[ClusterInfo]:
    """Connect to a cluster; use the present connection if there is one.

    Args:
        engine: ``ray`` for workers on this machine, which end afterwards, or ``ray:ADDRESS``.
        workers: Number of workers on this machine; None for one for each CPU.

    Raises:
        ConfigError: No cluster answers, or its workers have another version of the package.
        MissingExtraError: Ray is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # The messages of Ray's core go to standard error.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        ray = import_module("ray")
    except ImportError:
        raise MissingExtraError("--engine ray", "ray") from None
    if ray.is_initialized():
        yield _info(ray)
        return
    # No option stops messages about workers that died, which Ray prints to standard output.
    worker: Any = import_module("ray._private.worker")
    worker._worker_logs_enabled = False
    address = engine.partition(":")[2]
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if address:
        _check_answer(address)
        try:
            with _core_silenced():
                ray.init(address=address, **quiet)
        except (ConnectionError, RuntimeError, ValueError, SystemExit) as error:
            reason = str(error).strip().partition("\n")[0]
            raise ConfigError(f"--engine {engine}: no connection ({reason})") from None
    else:
        with _core_silenced():
            ray.init(
                address="local",
                num_cpus=workers,
                include_dashboard=False,
                object_store_memory=_LOCAL_STORE,
                **quiet,
            )
    try:
        if address:
            _check_versions(ray, engine)
        with _ended_by_sigterm():
            yield _info(ray)
    finally:
        ray.shutdown()


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM leave the block; Ray's core would print its stack and abort the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


@contextmanager
def _core_silenced() -> Iterator[None]:
    """Drop standard error inside the block, to which Ray's core writes its level of messages."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _info(ray: Any) -> ClusterInfo:
    resources = ray.cluster_resources()
    nodes = sum(node["Alive"] for node in ray.nodes())
    return ClusterInfo(nodes, int(resources.get("CPU", 0)), int(resources.get("GPU", 0)))


def _check_answer(address: str) -> None:
    """Check that something listens at an address, since Ray itself waits for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host:  # a name such as auto
        return
    with suppress(OSError, ValueError, OverflowError):
        socket.create_connection((host.strip("[]"), int(port)), _ANSWERS_WITHIN).close()
        return
    raise ConfigError(
        f"--engine ray:{address}: no cluster answers; compare the address with that of `ray "
        "status` on the cluster, or use workers of this machine with --engine ray"
    )


def _check_versions(ray: Any, engine: str) -> None:
    """Check that each machine of the cluster has the version of the package of this process."""
    strategies = import_module("ray.util.scheduling_strategies")
    asking = ray.remote(_version)
    asked = [
        asking.options(
            num_cpus=0,
            scheduling_strategy=strategies.NodeAffinitySchedulingStrategy(
                node["NodeID"], soft=False
            ),
        ).remote()
        for node in ray.nodes()
        if node["Alive"]
    ]
    try:
        versions = set(ray.get(asked))
    except ray.exceptions.RayTaskError as error:
        versions = {f"none ({error.cause})"}
    if versions != {__version__}:
        raise ConfigError(
            f"--engine {engine}: the workers have version {', '.join(sorted(versions))} of "
            f"simcse-kit, and this process has {__version__}; install the same version everywhere"
        )


def _version() -> str:
    return __version__
