"""Locks between processes, by files that the system lets go of when their holder ends or is killed.

They hold between processes of one machine on any disk, and between machines where the disk passes
`flock` on: NFS 4 and Lustre (mounted with `flock`) do. Where the disk knows no locks the log says
so, and nothing is locked. On Windows nothing is locked.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from simcse_kit.errors import ConfigError

if sys.platform != "win32":
    import fcntl

__all__ = ["is_locked", "locked", "output_locked"]

logger = logging.getLogger(__name__)

_UNKNOWN = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EBADF, errno.EINVAL)
_PAUSE, _TRIES = 0.1, 3


@contextmanager
def locked(path: Path, *, busy: str, wait: bool = False) -> Iterator[None]:
    """Hold the lock ``path`` inside. The file holds the number of the process, and goes away.

    Args:
        path: of the lock file; its folder must exist.
        busy: the error where another process holds the lock, put behind its number.
        wait: wait for the other process.

    Raises:
        ConfigError: another process holds the lock.
        OSError: the file cannot be made.
    """
    if sys.platform == "win32":
        yield
        return
    descriptor = _acquire(path, busy, wait)
    try:
        yield
    finally:
        if _is_file(descriptor, path):
            with suppress(OSError):
                path.unlink()
        os.close(descriptor)


@contextmanager
def output_locked(folder: Path, purpose: str, *, busy: str) -> Iterator[None]:
    """Hold the output folder ``folder``, which need not exist, for a purpose.

    The lock file is next to the folder, or inside where nothing can be written next to it (a
    mounted volume).

    Args:
        folder: of the output; the folder above it is made.
        purpose: a word; each purpose has a lock of its own.
        busy: as for :func:`locked`.

    Raises:
        ConfigError: another process holds it.
        OSError: the file cannot be made.
    """
    absolute = folder.absolute()
    path = absolute.with_name(f".{absolute.name}.{purpose}.lock")
    with ExitStack() as held:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(path, busy=busy))
        except OSError:
            if not folder.is_dir():
                raise
            held.enter_context(locked(folder / f".{purpose}.lock", busy=busy))
        yield


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock ``path``."""
    if sys.platform == "win32":
        return False
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _acquire(path: Path, busy: str, wait: bool) -> int:
    tries = 0
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(descriptor)
            os.close(descriptor)
            # Whoever asks whether it is held does so for a moment.
            tries += 1
            if not wait and tries > _TRIES:
                raise ConfigError(f"{holder} {busy}") from None
            time.sleep(_PAUSE)
            continue
        except OSError as error:
            if error.errno not in _UNKNOWN:
                os.close(descriptor)
                raise
            logger.warning(
                "%s: the disk knows no locks (%s); do not start the same command twice at a time",
                path.parent,
                error.strerror,
            )
            return descriptor
        # The last holder may have removed the file in the meantime.
        if _is_file(descriptor, path):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
            return descriptor
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    with suppress(OSError, ValueError):
        return f"process {int(os.pread(descriptor, 20, 0))}"
    return "another process"


def _is_file(descriptor: int, path: Path) -> bool:
    """Whether the open file is the one that has the name now."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False
