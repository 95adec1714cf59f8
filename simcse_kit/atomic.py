"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from simcse_kit.errors import ConfigError

__all__ = ["free_bytes", "replacement", "sync_folder", "write_whole"]


@contextmanager
def replacement(target: Path, *, remedy: str = "give another place") -> Iterator[Path]:
    """A path beside ``target`` to write to; what is there takes its place at the end.

    Where the block raises, ``target`` stays as it was and nothing is left beside it. Make the file
    with ``open``, so that it gets the permissions that the user's umask asks for.

    Args:
        target: the file to replace or to make; its folder must exist.
        remedy: what the error advises.

    Raises:
        ConfigError: writing failed; any OSError of the block is taken for that.
    """
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


def write_whole(target: Path, content: str | bytes, *, remedy: str = "give another place") -> None:
    """Write a file, text as UTF-8, whole or not at all.

    Raises:
        ConfigError: it cannot be written.
    """
    with replacement(target, remedy=remedy) as path:
        path.write_bytes(content.encode() if isinstance(content, str) else content)


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
