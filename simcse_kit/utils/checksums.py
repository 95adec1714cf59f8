"""What tells whether a file is the one it was."""

from __future__ import annotations

import hashlib
import mmap
from pathlib import Path

__all__ = ["checksum_of", "sha256_of"]


def checksum_of(path: Path) -> str:
    """Checksum (XXH3, 128 bits) of the content of a file, in hexadecimal.

    It is many times as fast as SHA-256 and finds every accidental change. It proves nothing about
    who wrote the file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is empty.
    """
    from xxhash import xxh3_128

    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        return xxh3_128(content).hexdigest()


def sha256_of(path: Path) -> str:
    """SHA-256 of the content of a file, in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
