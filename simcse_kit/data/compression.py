"""Decompression of gzip, bzip2 and xz files in bounded memory."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from typing import Any

__all__ = ["DAMAGED", "NAMES", "SIGNATURES", "decompressed", "is_bzip2", "is_damage"]

NAMES = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz"}
"""Name of the compression by suffix."""

SIGNATURES = (
    (b"\x1f\x8b", "gzip data", "does not end in .gz; rename it"),
    (b"\xfd7zXZ\x00", "xz data", "does not end in .xz; rename it"),
    (b"PK\x03\x04", "a zip archive", "says otherwise; unpack it first with: unzip"),
    (b"\x28\xb5\x2f\xfd", "zstd data", "says otherwise; unpack it first with: zstd -d"),
)
"""First bytes of a file, their meaning, and the end of a message about the file's name."""
_BZIP2 = b"1AY&SY"

DAMAGED = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)
"""Exceptions raised by damaged data, apart from a plain OSError of bzip2."""

# An xz file states how much memory its reader needs; xz -9 needs 65 MB.
_XZ_MEMORY = 256 << 20
_CHUNK = 1 << 16


def is_damage(error: OSError) -> bool:
    """Check whether an error is about the compressed data, not of the operating system."""
    return error.errno is None


def is_bzip2(first: bytes) -> bool:
    """Check whether bytes begin like a bzip2 file; ``BZh`` alone may begin a text."""
    return first.startswith(b"BZh") and first[4:10] == _BZIP2


def decompressed(raw: io.RawIOBase, suffix: str, buffer: int) -> io.BufferedReader:
    """Open a buffered reader of the text in a compressed file, which also closes the file.

    Args:
        raw: The compressed file.
        suffix: A key of :data:`NAMES`.
        buffer: Size of the buffer of text, in bytes.
    """
    inner: Any
    if suffix == ".gz":
        inner = gzip.GzipFile(fileobj=raw, mode="rb")
    elif suffix == ".bz2":
        inner = bz2.BZ2File(raw)
    else:
        inner = _Xz(raw)
    return _Closing(inner, raw, buffer)


class _Closing(io.BufferedReader):
    """Buffer over a decompressor, which makes readline a C call for all of them."""

    def __init__(self, inner: Any, raw: io.RawIOBase, buffer: int):
        self._compressed = raw
        super().__init__(inner, buffer)

    def close(self) -> None:
        super().close()
        self._compressed.close()


class _Xz(io.RawIOBase):
    """Replacement for lzma.LZMAFile that limits the memory a file may ask for."""

    def __init__(self, raw: io.RawIOBase):
        self._raw = raw
        self._one = self._new()
        self._rest = b""

    @staticmethod
    def _new() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while True:
            if self._one.eof:
                # Streams may follow each other, with padding of zeros between them.
                rest = (self._one.unused_data or self._raw.read(_CHUNK) or b"").lstrip(b"\0")
                if not rest:
                    return 0
                self._one, self._rest = self._new(), rest
            if self._one.needs_input and not self._rest:
                self._rest = self._raw.read(_CHUNK) or b""
                if not self._rest:
                    raise EOFError("the file ends inside the data")
            data = self._one.decompress(self._rest, max_length=len(buffer))
            self._rest = b""
            if data:
                buffer[: len(data)] = data
                return len(data)
