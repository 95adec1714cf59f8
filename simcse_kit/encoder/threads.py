"""Threads that share work, each computing with one core."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

import torch

__all__ = ["in_parallel", "on_own_thread", "shared_out"]

Job = TypeVar("Job")
Result = TypeVar("Result")


def shared_out(
    work: Callable[[Job], Result], jobs: Sequence[Job], workers: int
) -> Iterator[tuple[Job, Result]]:
    """Run a function on every job, in several threads at a time.

    Several threads with one batch each are faster than several torch threads in one batch, because
    no thread waits at the end of every operator. The result of a job does not depend on its thread.

    Args:
        work: Function of one job; several threads call it.
        jobs: Arguments of the function.
        workers: Number of threads; with 1, or for a single job, the calling thread is used.

    Yields:
        Each job with its result, in order of completion.
    """
    if workers < 2 or len(jobs) < 2:
        for job in jobs:
            yield job, work(job)
        return
    remaining = iter(jobs)
    with _single_cored(min(workers, len(jobs))) as pool:
        alone = _as_here(work)
        # One job waits for each running one, so the number of results in flight is bounded.
        running = {
            pool.submit(alone, job): job
            for _, job in zip(range(2 * workers), remaining, strict=False)
        }
        while running:
            ready, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in ready:
                yield running.pop(future), future.result()
                for job in remaining:
                    running[pool.submit(alone, job)] = job
                    break


def in_parallel(work: Callable[[Job], Result], jobs: Sequence[Job]) -> list[Result]:
    """Run a function on all jobs at the same time, one thread each; results in their order."""
    if len(jobs) < 2:
        return [work(job) for job in jobs]
    with _single_cored(len(jobs)) as pool:
        return list(pool.map(_as_here(work), jobs))


def on_own_thread(work: Callable[[], Result]) -> Result:
    """Run a function in a new thread and wait for it.

    The OpenMP threads that torch starts for a thread end with it, so none is left for the child of
    a fork to wait for. The new thread has torch's default settings and not those of the caller: no
    autocast, no default device, no inference mode.
    """
    pool = ThreadPoolExecutor(1)
    future = pool.submit(work)
    # An interrupt ends the waiting at once; the thread ends on its own after its work.
    wait([future])
    pool.shutdown()
    return future.result()


@contextmanager
def _single_cored(workers: int) -> Iterator[ThreadPoolExecutor]:
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers, initializer=_use_one_core)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(threads)


def _use_one_core() -> None:
    # The number of threads is a setting of each thread, whose first use takes over the number that
    # any thread has set last. The first use must therefore come before the setting.
    torch.get_num_threads()
    torch.set_num_threads(1)


def _as_here(work: Callable[[Job], Result]) -> Callable[[Job], Result]:
    """Run ``work`` in the inference mode of the calling thread."""
    inference = torch.is_inference_mode_enabled()

    def run(job: Job) -> Result:
        with torch.inference_mode(inference):
            return work(job)

    return run
