"""Locks between processes by files, released by the system when their holder ends or is killed.

They work between processes of one machine, and between machines on file systems that forward
`flock`, such as NFS 4 and Lustre (mounted with `flock`). On a file system without locks a warning
is logged and nothing is locked. On Windows nothing is locked.
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
    """Hold a lock inside the block. The lock file has the process id, and is removed at the end.

    Args:
        path: path of the lock file; its folder must exist.
        busy: error message if another process holds the lock; its process id precedes it.
        wait: whether to wait for the other process instead.

    Raises:
        ConfigError: another process holds the lock.
        OSError: the file cannot be created.
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
    """Lock an output folder inside the block.

    The lock file is next to the folder, or inside it if its parent cannot be written to (a mounted
    volume).

    Args:
        folder: the output folder, which need not exist; its parent is created.
        purpose: a word; each purpose has its own lock.
        busy: error message if another process holds the lock; its process id precedes it.

    Raises:
        ConfigError: another process holds the lock.
        OSError: the file cannot be created.
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
    """Check whether a process holds the lock of a file."""
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
            # A process in is_locked holds the lock for a short time.
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
                "%s: the file system has no locks (%s); do not run the same command twice at once",
                path.parent,
                error.strerror,
            )
            return descriptor
        # The previous holder may have removed the file in the meantime.
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
    """Check whether the open file is still the file at the path."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False
