"""Folders and files that no other user can have written."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from simcse_kit.errors import ConfigError

__all__ = ["check_private", "is_own_file", "make_private"]

# Windows has no owners of this kind.
_USER = os.getuid() if hasattr(os, "getuid") else None
_TRUSTED = (_USER, 0)


def make_private(folder: Path, *, remedy: str) -> None:
    """Make a folder that only its owner can look into, or check the one that exists.

    Args:
        folder: the folder; those above it are made with the usual permissions.
        remedy: what the error advises.

    Raises:
        ConfigError: it cannot be made, or :func:`check_private` refuses it.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"the cache folder {folder} cannot be made: {reason}; {remedy}") from None
    check_private(folder, remedy=remedy)


def check_private(folder: Path, *, remedy: str) -> None:
    """Refuse a folder in which another user can put files; a missing one is fine.

    Raises:
        ConfigError: it is a symbolic link, belongs to another user than this one or root, or every
            user can write to it.
    """
    try:
        status = folder.lstat()
    except OSError:
        return
    if stat.S_ISLNK(status.st_mode):
        raise ConfigError(f"the cache folder {folder} is a symbolic link; {remedy}")
    if _USER is None:
        return
    if status.st_uid not in _TRUSTED:
        raise ConfigError(
            f"the cache folder {folder} belongs to another user (number {status.st_uid}), who "
            f"could change the training text; {remedy}"
        )
    if status.st_mode & stat.S_IWOTH:
        raise ConfigError(
            f"every user can write to the cache folder {folder}, and could change the training "
            f"text; run chmod 700 on it, or {remedy}"
        )


def is_own_file(path: Path) -> bool:
    """Whether ``path`` is a regular file, no link, of this user or root."""
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and (_USER is None or status.st_uid in _TRUSTED)
