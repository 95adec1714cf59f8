"""Tasks of Ray: results in order with a bounded number of tasks, and failures as errors."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from simcse_kit.errors import DataError, SimcseError

__all__ = ["failures", "in_order", "task"]


@contextmanager
def failures(what: str, *, kept: str = "nothing was written") -> Iterator[None]:
    """Turn the failures of a cluster into errors of one line.

    Args:
        what: Work that failed, for the message.
        kept: What happened to the output, for the message.

    Raises:
        SimcseError: A worker lacked memory, or the cluster stopped.
    """
    ray = import_module("ray")
    try:
        yield
    except ray.exceptions.OutOfMemoryError:
        raise SimcseError(
            f"{what}: a worker ran out of memory, also when it was tried again; {kept}; "
            "start fewer workers on each machine, or use machines with more memory"
        ) from None
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, SimcseError):
            raise error.cause from None
        if isinstance(error.cause, FileNotFoundError):
            raise DataError("vanished while it was read", file=error.cause.filename) from None
        raise
    except ray.exceptions.RayError as error:
        reason = str(error).strip().partition("\n")[0]
        raise SimcseError(
            f"{what}: the cluster failed ({type(error).__name__}: {reason}); {kept}; "
            "look at `ray status` and try again"
        ) from None


def task(function: Callable[..., Any], returns: int = 1) -> Any:
    """Return a remote function; call its ``remote`` to start a task with ``returns`` results."""
    return import_module("ray").remote(function).options(num_returns=returns)


def in_order(
    started: Iterable[tuple[Any, Any]], *, ahead: int | None = None
) -> Iterator[tuple[Any, Any]]:
    """Yield what ``started`` yields once the tasks have ended, in order.

    Args:
        started: Generator that starts a task for each pair it yields: anything that is needed with
            the result, and the reference of the result, or a list of references of which the first
            shows that the task has ended. It advances only as fast as the tasks end.
        ahead: Largest number of tasks that have not ended; None for two more than twice the CPUs.
    """
    ray = import_module("ray")
    limit = ahead or 2 + 2 * int(ray.cluster_resources().get("CPU", 1))
    waiting: deque[tuple[Any, Any]] = deque()

    def ended() -> tuple[Any, Any]:
        kept, found = waiting.popleft()
        ray.wait([found[0] if isinstance(found, list) else found], fetch_local=False)
        return kept, found

    for pair in started:
        waiting.append(pair)
        if len(waiting) >= limit:
            yield ended()
    while waiting:
        yield ended()
