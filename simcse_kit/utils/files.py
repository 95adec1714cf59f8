"""Files and folders that appear whole or not at all."""

from __future__ import annotations

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
    "free_bytes",
    "move",
    "remove_leftovers",
    "replacement",
    "sync_folder",
    "write_whole",
]

_DAY = 86_400
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp")


@contextmanager
def replacement(target: Path, *, remedy: str = "give another place") -> Iterator[Path]:
    """A path beside ``target`` to write to; what is there takes its place at the end.

    Where the block raises, ``target`` stays as it was and nothing is left beside it. Make the file
    with ``open``, so that it gets the permissions that the user's umask asks for.

    Args:
        target: the file to replace or to make; its folder must exist.
        remedy: what the error advises.

    Raises:
        ConfigError: the target is a folder, a device or a pipe, or writing failed; any OSError of
            the block is taken for that.
    """
    if target.exists() and not target.is_file():
        # The rename below would put a file in the place of a device such as /dev/null.
        raise ConfigError(f"{target} cannot be written: it is no regular file; {remedy}")
    # A short name of its own: the target's may be as long as names can be.
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        yield temporary
        # Else a crash soon after the rename can leave an empty file under the final name.
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
    """Put a finished file in the place of ``target``, on the same disk.

    Raises:
        ConfigError: it cannot be done.
    """
    try:
        path.replace(target)
        _sync(target.parent)
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"{target} cannot be written: {reason}; {remedy}") from None


def write_whole(target: Path, content: str | bytes, *, remedy: str = "give another place") -> None:
    """Write a file, text as UTF-8, whole or not at all.

    Raises:
        ConfigError: it cannot be written.
    """
    with replacement(target, remedy=remedy) as path:
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def remove_leftovers(folder: Path, *, at_work: bool = False) -> None:
    """Remove what killed processes were writing into ``folder``.

    Args:
        folder: the folder; nothing below it is looked at.
        at_work: others may be writing into it now, so that only what is a day old goes.
    """
    for path in folder.glob(".*.tmp"):
        with suppress(OSError):
            if _TEMPORARY.fullmatch(path.name) and (
                not at_work or time.time() - path.stat().st_mtime > _DAY
            ):
                path.unlink()


def sync_folder(folder: Path) -> None:
    """Have the disk hold every file below ``folder``, and their names, before what comes next."""
    for path in (*folder.rglob("*"), folder):
        _sync(path)


def free_bytes(place: Path) -> int:
    """Room on the disk of ``place``, or of the nearest folder above it that exists."""
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows opens no folders
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
