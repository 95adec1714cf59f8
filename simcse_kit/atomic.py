"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from simcse_kit.errors import ConfigError

__all__ = ["replacement", "write_whole"]


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
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
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
