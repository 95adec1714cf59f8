"""Locks on a job: held by one process, or by one process for each part."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from simcse_kit.bulk.output import OutputSpec
from simcse_kit.errors import ConfigError
from simcse_kit.utils.locks import is_locked, locked

__all__ = ["REMEDY", "finalizing", "job_locked", "others_at_work"]

REMEDY = "start over with --overwrite, or give another --output"
"""Remedy for a folder that holds something else."""

_WHOLE = (1, 1)
_BUSY = "is encoding to the same output; wait until it has finished, or give another --output"
_TRIES = 5


@contextmanager
def job_locked(output: OutputSpec) -> Iterator[None]:
    """Create the folder of a job and lock its part; an empty folder is removed at the end.

    Raises:
        ConfigError: Another process works on the same part, or on the whole job while this is a
            part, or the reverse; or the folder cannot be created.
    """
    folder = output.folder
    try:
        with _locked_part(output):
            whole = output.part == _WHOLE
            if others_at_work(output) if whole else is_locked(_lock(folder, _WHOLE)):
                raise ConfigError(f"another process {_BUSY} ({folder})")
            yield
    finally:
        with suppress(OSError):  # usually the folder is not empty
            folder.rmdir()


def finalizing(output: OutputSpec) -> AbstractContextManager[None]:
    """Lock the last step of a job; wait for a process that is already in it."""
    return locked(output.folder / ".lock-finish", busy=_BUSY, wait=True)


def others_at_work(output: OutputSpec) -> bool:
    """Return whether other processes work on parts of the job."""
    own = _lock(output.folder, output.part)
    return any(is_locked(path) for path in output.folder.glob(".lock-*-of-*") if path != own)


@contextmanager
def _locked_part(output: OutputSpec) -> Iterator[None]:
    folder = output.folder
    for number in range(1, _TRIES + 1):
        try:
            folder.mkdir(exist_ok=True)
            lock = locked(_lock(folder, output.part), busy=f"{_BUSY} ({folder})")
            lock.__enter__()
            break
        except OSError as error:
            # A process that has just finished may have removed the folder.
            if not isinstance(error, FileNotFoundError) or number == _TRIES:
                reason = error.strerror or error
                raise ConfigError(f"{folder} cannot be used: {reason}; {REMEDY}") from None
    try:
        yield
    finally:
        lock.__exit__(None, None, None)


def _lock(folder: Path, part: tuple[int, int]) -> Path:
    return folder / f".lock-{part[0]}-of-{part[1]}"
