"""Connections to Ray: a local one inside this program, or a cluster by its address."""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import simcse_kit
from simcse_kit.errors import ConfigError, MissingExtraError

__all__ = ["ClusterInfo", "connected", "package_version", "parse_engine"]

# Seconds in which a cluster must accept a connection, and in which its workers must start.
_ANSWER, _START = 5.0, 120.0
# First bytes of every connection over HTTP/2, on which gRPC builds: the greeting and an empty
# SETTINGS frame (RFC 9113, section 3.4). The fourth byte of the answer is the type SETTINGS.
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_SETTINGS = 4
# Groups of more cores encode hardly faster, and each group holds a model.
_MOST_THREADS = 4


@dataclass(frozen=True)
class ClusterInfo:
    """A connected cluster, and how work is divided in it.

    Attributes:
        address: Address of the cluster; empty for the one inside this program.
        nodes: Number of its machines.
        cpus: Number of its CPU cores.
        gpus: Number of its GPUs.
        workers: Number of processes that share the work.
        threads: Number of CPU cores for each of them.
    """

    address: str
    nodes: int
    cpus: int
    gpus: int
    workers: int
    threads: int


def parse_engine(text: str) -> str | None:
    """Read the value of the option ``--engine``.

    Args:
        text: ``local``, ``ray`` or ``ray:HOST:PORT``.

    Returns:
        None for the local engine; for Ray the address of the cluster, which is empty for the one
        inside this program.

    Raises:
        ConfigError: The value is none of these.

    Examples:
        >>> parse_engine("local")
        >>> parse_engine("ray")
        ''
        >>> parse_engine("ray:10.0.0.1:6379")
        '10.0.0.1:6379'
    """
    if text == "local":
        return None
    name, separator, address = text.partition(":")
    host, _, port = address.rpartition(":")
    is_address = host and "/" not in host and port.isdecimal() and 0 < int(port) < 65536
    if name != "ray" or (separator and not is_address):
        raise ConfigError(
            f"--engine {text} is unknown; allowed: local, ray (on this machine) or ray:HOST:PORT "
            "(the address that `ray start --head` prints, such as ray:10.0.0.1:6379)"
        )
    return address


@contextmanager
def connected(address: str | None = None, workers: int | None = None) -> Iterator[ClusterInfo]:
    """Connect to Ray inside a ``with`` block.

    A connection that exists before the block is used and stays open. Inside the block SIGTERM ends
    the program in the same way as ``sys.exit``, so that no process of Ray is left.

    Args:
        address: ``HOST:PORT`` of a cluster; None or empty to start Ray on this machine.
        workers: Number of processes that share the work; None for one per GPU, or for one per
            group of cores.

    Raises:
        MissingExtraError: Ray is not installed.
        ConfigError: No cluster answers within a few seconds, or its machines do not run this
            version of the package.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"--workers {workers}: it must be 1 or more")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise MissingExtraError("--engine ray", "ray") from None

    if ray.is_initialized():
        yield _described(ray, address or "", workers)
        return
    on_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        _start(ray, address, workers)
        if on_main_thread:
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        info = _described(ray, address or "", workers)
        if address:
            _check_versions(ray)
        yield info
    finally:
        ray.shutdown()
        if on_main_thread:
            signal.signal(signal.SIGTERM, before)


def _start(ray: Any, address: str | None, workers: int | None) -> None:
    quiet = {"logging_level": logging.CRITICAL, "log_to_driver": False}
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    if not address:
        cores = max(_own_cores(), workers or 1)
        ray.init(address="local", num_cpus=cores, include_dashboard=False, **quiet)
        return
    remedy = "give the address that `ray start --head` prints"
    _check_answer(address, remedy)
    try:
        ray.init(address=address, **quiet)
    except (RuntimeError, ConnectionError, ValueError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"--engine ray:{address}: the cluster cannot be used ({reason}); {remedy}, and use its "
            "versions of Ray and Python"
        ) from None


def _check_answer(address: str, remedy: str) -> None:
    """Check that a gRPC server answers, because Ray itself tries for two minutes."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _ANSWER) as connection:
            connection.sendall(_GREETING)
            answer = connection.recv(9)
    except OSError as error:
        reason = error.strerror or str(error) or "no answer"
    else:
        if answer[3:4] == bytes([_SETTINGS]):
            return
        reason = "the server is not that of a cluster"
    raise ConfigError(f"--engine ray:{address}: no cluster answers there ({reason}); {remedy}")


def _described(ray: Any, address: str, workers: int | None) -> ClusterInfo:
    total = ray.cluster_resources()
    cpus, gpus = int(total.get("CPU", 0)), int(total.get("GPU", 0))
    threads = max(1, min(_MOST_THREADS, cpus // 2))
    if workers is not None:
        threads = max(1, cpus // workers)
        if workers > max(cpus, gpus):
            raise ConfigError(
                f"--workers {workers}: the cluster has {cpus} CPU cores and {gpus} GPUs; give "
                f"--workers {max(cpus, gpus, 1)} or fewer"
            )
    elif gpus:
        threads = max(1, min(threads, cpus // gpus))
    nodes = sum(node["Alive"] for node in ray.nodes())
    return ClusterInfo(address, nodes, cpus, gpus, workers or gpus or cpus // threads, threads)


def _check_versions(ray: Any) -> None:
    """Check that each machine of the cluster runs this version of the package."""
    from ray.exceptions import GetTimeoutError, RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    own = package_version()
    asked = ray.remote(num_cpus=0, max_retries=0)(package_version)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    answers = [
        asked.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote()
        for node in nodes
    ]
    for node, answer in zip(nodes, answers, strict=True):
        try:
            found = ray.get(answer, timeout=_START)
        except GetTimeoutError:
            found = f"no answer within {_START:.0f} seconds"
        except RayError as error:
            found = str(error).strip().splitlines()[-1]
        except ImportError as error:
            found = str(error)
        if found != own:
            raise ConfigError(
                f"the machine {node['NodeManagerAddress']} of the cluster does not run version "
                f"{own} of simcse-kit, as this program does ({found}); install the same version "
                "on all machines"
            )


def package_version() -> str:
    """Return the version of the package, with a checksum of its source."""
    digest = hashlib.sha256()
    root = Path(simcse_kit.__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(path.read_bytes())
    return f"{simcse_kit.__version__} ({digest.hexdigest()[:12]})"


def _own_cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on all systems
        return os.cpu_count() or 1
