"""Atomic writes, checksums, and other operations on files."""

from __future__ import annotations

import hashlib
import mmap
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from simcse_kit.errors import ConfigError

__all__ = [
    "checksum_of",
    "free_bytes",
    "move",
    "remove_leftovers",
    "replacement",
    "sha256_of",
    "sync_folder",
    "why_unusable",
    "write_atomic",
]

_DAY = 86_400
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp")


@contextmanager
def replacement(target: Path, *, remedy: str = "give another place") -> Iterator[Path]:
    """Yield a temporary path next to ``target``, which replaces ``target`` at the end of the block.

    If the block raises, ``target`` is unchanged and the temporary file is removed. Create the file
    with ``open``, so that it gets the permissions of the user's umask.

    Args:
        target: the file to write; its folder must exist.
        remedy: advice for the error message.

    Raises:
        ConfigError: the target is a folder, a device or a pipe, or the block raised an OSError.
    """
    if target.exists() and not target.is_file():
        # Otherwise the rename would replace a device such as /dev/null by a file.
        raise ConfigError(f"{target} cannot be written: it is not a regular file; {remedy}")
    # A short name, because the target's name may have the greatest length allowed.
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        yield temporary
        # Without it, a crash after the rename can leave an empty file under the final name.
        _sync(temporary)
        temporary.replace(target)
        _sync(target.parent)
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"{target} cannot be written: {reason}; {remedy}") from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def move(path: Path, target: Path, *, remedy: str = "give another place") -> None:
    """Replace ``target`` by a finished file on the same disk.

    Raises:
        ConfigError: the file cannot be moved.
    """
    try:
        path.replace(target)
        _sync(target.parent)
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"{target} cannot be written: {reason}; {remedy}") from None


def write_atomic(target: Path, content: str | bytes, *, remedy: str = "give another place") -> None:
    """Write a file atomically, text as UTF-8.

    Raises:
        ConfigError: the file cannot be written.
    """
    with replacement(target, remedy=remedy) as path:
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def remove_leftovers(folder: Path, *, at_work: bool = False) -> None:
    """Remove the temporary files of killed processes from a folder.

    Args:
        folder: the folder; its subfolders are not searched.
        at_work: whether other processes may be writing into the folder; then only files older than
            a day are removed.
    """
    for path in folder.glob(".*.tmp"):
        with suppress(OSError):
            if _TEMPORARY.fullmatch(path.name) and (
                not at_work or time.time() - path.stat().st_mtime > _DAY
            ):
                path.unlink()


def sync_folder(folder: Path) -> None:
    """Flush every file below ``folder``, and their names, to the disk."""
    for path in (*folder.rglob("*"), folder):
        _sync(path)


def why_unusable(folder: Path) -> str | None:
    """Return why a folder cannot be created or written; None if it can. Nothing is created."""
    place = folder
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        return f"{place} is a file"
    if not os.access(place, os.W_OK | os.X_OK):
        return f"no permission to write into {place}"
    return None


def free_bytes(place: Path) -> int:
    """Return the free bytes on the disk of ``place``, which need not exist."""
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def checksum_of(path: Path) -> str:
    """Return the checksum of a file (XXH3, 128 bits) in hexadecimal.

    It is much faster than SHA-256 and detects accidental changes, but not deliberate ones.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is empty.
    """
    from xxhash import xxh3_128

    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        return xxh3_128(content).hexdigest()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows opens no folders
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
