"""Who works on a job: one process, or one for each of its parts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from simcse_kit.bulk.output import Target
from simcse_kit.errors import ConfigError
from simcse_kit.utils.locks import is_locked, locked

__all__ = ["REMEDY", "claimed", "finishing", "others_at_work"]

REMEDY = "start over with --overwrite, or give another --output"
"""What to do about a folder that holds something else."""

_WHOLE = (1, 1)
_BUSY = "computes the same at this time; wait until it is through, or give another --output"
_TRIES = 5


@contextmanager
def claimed(target: Target) -> Iterator[None]:
    """Make the folder of a job and hold the part of ``target``; at the end, no empty folder stays.

    Raises:
        ConfigError: another process works on that part, or on the whole where this is a part, or
            the other way round; or the folder cannot be made.
    """
    work = target.work
    try:
        with _held(target):
            whole = target.part == _WHOLE
            if others_at_work(target) if whole else is_locked(_lock(work, _WHOLE)):
                raise ConfigError(f"another process {_BUSY} ({work})")
            yield
    finally:
        with suppress(OSError):  # it is not empty, as a rule
            work.rmdir()


def finishing(target: Target) -> AbstractContextManager[None]:
    """Hold the end of a job, after a process that is at it."""
    return locked(target.work / ".lock-finish", busy=_BUSY, wait=True)


def others_at_work(target: Target) -> bool:
    """Whether other processes work on parts of the job."""
    own = _lock(target.work, target.part)
    return any(is_locked(path) for path in target.work.glob(".lock-*-of-*") if path != own)


@contextmanager
def _held(target: Target) -> Iterator[None]:
    work = target.work
    for number in range(1, _TRIES + 1):
        try:
            work.mkdir(exist_ok=True)
            lock = locked(_lock(work, target.part), busy=f"{_BUSY} ({work})")
            lock.__enter__()
            break
        except FileNotFoundError as error:
            # A process that has just finished may have removed the folder.
            if number == _TRIES:
                raise _unusable(work, error) from None
        except OSError as error:
            raise _unusable(work, error) from None
    try:
        yield
    finally:
        lock.__exit__(None, None, None)


def _lock(work: Path, part: tuple[int, int]) -> Path:
    return work / f".lock-{part[0]}-of-{part[1]}"


def _unusable(work: Path, error: OSError) -> ConfigError:
    return ConfigError(f"{work} cannot be used: {error.strerror or error}; {REMEDY}")
