"""Checksums of files."""

from __future__ import annotations

import hashlib
import mmap
from pathlib import Path

__all__ = ["checksum_of", "sha256_of"]


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
