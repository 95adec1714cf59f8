"""Raw lines: opening, decompressing, decoding, and what makes a single line bad.

Memory is bounded by the line limit: of an endless line no more than the limit is ever held.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import IO, Any

from simcse_kit.data.bad_rows import OnBadRow, Problem, ReadReport, RowGate
from simcse_kit.data.compression import (
    DAMAGED,
    NAMES,
    SIGNATURES,
    decompressed,
    is_bzip2,
    is_damage,
)
from simcse_kit.data.files import check_file
from simcse_kit.errors import ConfigError, DataError

__all__ = [
    "MAX_LINE_BYTES",
    "STDIN",
    "OnBytes",
    "check_signature",
    "open_bytes",
    "read_lines",
    "scan",
    "shown",
    "unreadable",
]

MAX_LINE_BYTES = 1_000_000
"""Longest line accepted by default, in bytes without the line end."""

STDIN = "-"
"""The path that stands for standard input where :func:`read_lines` reads."""

OnBytes = Callable[[int], None]
"""Called with the number of bytes just read from the file, before decompression."""

_BUFFER = 1 << 20
_SIGNATURES = (
    # UTF-32 first: its little-endian mark begins with that of UTF-16.
    (b"\xff\xfe\x00\x00", "UTF-32 text"),
    (b"\x00\x00\xfe\xff", "UTF-32 text"),
    (b"\xff\xfe", "UTF-16 text"),
    (b"\xfe\xff", "UTF-16 text"),
)


class _CountedFile(io.FileIO):
    """A raw file that tells how many bytes each read took."""

    def __init__(self, path: str | Path, on_bytes: OnBytes | None):
        super().__init__(path, "r")
        self._on_bytes = on_bytes

    def readinto(self, buffer: Any, /) -> int | None:
        count = super().readinto(buffer)
        if count and self._on_bytes is not None:
            self._on_bytes(count)
        return count


def shown(path: str | Path) -> str:
    """How ``path`` is named in messages."""
    return "<standard input>" if str(path) == STDIN else str(path)


def scan(
    path: str | Path,
    *,
    max_line_bytes: int = MAX_LINE_BYTES,
    on_bytes: OnBytes | None = None,
    returns: bool = False,
) -> Iterator[tuple[int, str, Problem | None]]:
    r"""The physical lines of a text file, good or bad.

    A line ends at ``\n`` only; the line end (``\n`` or ``\r\n``) is kept in the text. A byte order
    mark of UTF-8 is dropped. A file whose name ends in ``.gz``, ``.bz2`` or ``.xz`` is
    decompressed. The rest of a line over the limit is read only when the next line is asked for.

    Args:
        path: the file.
        max_line_bytes: the longest line accepted.
        on_bytes: told of the bytes read from the file.
        returns: a line may have carriage returns inside, as JSON and quoted fields may. Elsewhere
            they are line ends of another system, which would make one row of many.

    Yields:
        ``(line number from 1, text, problem)``. Where ``problem`` is not None the text is only good
        for finding where a quoted field ends: undecodable bytes are escaped, and it is empty for a
        line over the limit.

    Raises:
        DataError: the file as a whole cannot be read: missing, not a regular file, UTF-16,
            compressed without the suffix, damaged.
        ConfigError: ``max_line_bytes`` is below 1.
    """
    if max_line_bytes < 1:
        raise ConfigError(f"max_line_bytes is {max_line_bytes}; it must be at least 1")
    number = 0
    try:
        with open_bytes(path, on_bytes) as stream:
            # Two bytes more than the limit leave room for the line end.
            for raw in iter(partial(stream.readline, max_line_bytes + 2), b""):
                number += 1
                if number == 1:
                    check_signature(raw, path)
                    raw = raw.removeprefix(b"\xef\xbb\xbf")
                if len(raw) > max_line_bytes and _length(raw) > max_line_bytes:
                    yield number, "", _too_long(max_line_bytes)
                    _skip_rest(stream, raw)
                elif b"\0" in raw:
                    yield number, raw.decode("utf-8", "surrogateescape"), _nul(raw)
                else:
                    try:
                        text = raw.decode("utf-8")
                    except UnicodeDecodeError as error:
                        escaped = raw.decode("utf-8", "surrogateescape")
                        yield number, escaped, _not_utf8(raw, error)
                    else:
                        stray = not returns and "\r" in text and "\r" in text.rstrip("\r\n")
                        yield number, text, _stray_return(text) if stray else None
    except (*DAMAGED, OSError) as error:
        raise unreadable(path, error, f" after line {number}") from None


def read_lines(
    path: str | Path,
    *,
    on_bad_row: OnBadRow = "error",
    report: ReadReport | None = None,
    max_line_bytes: int = MAX_LINE_BYTES,
    keep_blank: bool = False,
) -> Iterator[str]:
    """The lines of a plain text file, stripped of surrounding whitespace.

    Args:
        path: any file name (decompressed if it ends in ``.gz``, ``.bz2`` or ``.xz``), or ``-`` for
            standard input.
        on_bad_row: what to do about a bad line: raise, or skip it and count it in ``report``.
        report: counts good lines and skipped ones.
        max_line_bytes: the longest line accepted.
        keep_blank: give a blank line as ``""``. Otherwise blank lines are passed over at the end
            of the file and are bad lines anywhere else.

    Raises:
        DataError: the file cannot be read or is empty, or a line is bad.
    """
    gate = RowGate(shown(path), on_bad_row, report)
    number = 0
    for number, line, problem in scan(path, max_line_bytes=max_line_bytes):
        text = line.strip()
        if problem is None and not text and not keep_blank:
            gate.blank(number)
            continue
        gate.settle()
        if problem is not None:
            gate.reject(number, problem)
            continue
        gate.report.rows += 1
        yield text
    gate.finish(number)


def open_bytes(
    path: str | Path, on_bytes: OnBytes | None = None
) -> AbstractContextManager[IO[bytes]]:
    """Open a file or standard input for reading bytes, decompressed by its suffix.

    Raises:
        DataError: the file is missing or not a regular file.
        OSError: it cannot be opened.
    """
    if str(path) == STDIN:
        return nullcontext(sys.stdin.buffer)
    raw = _CountedFile(check_file(path), on_bytes)
    suffix = Path(path).suffix.lower()
    if suffix in NAMES:
        return decompressed(raw, suffix, _BUFFER)
    return io.BufferedReader(raw, _BUFFER)


def unreadable(path: str | Path, error: Exception, where: str = "") -> DataError:
    """The error of a file that cannot be read to its end.

    Args:
        path: the file.
        error: one of :data:`~simcse_kit.data.compression.DAMAGED`, or an OSError.
        where: how far it was read, for compressed data.
    """
    kind = NAMES.get(Path(path).suffix.lower())
    damage = isinstance(error, DAMAGED) or (isinstance(error, OSError) and is_damage(error))
    if kind is not None and damage:
        what = "truncated" if isinstance(error, EOFError) else "damaged"
        return DataError(
            f"{what} {kind} data{where} ({error}); compress or copy the file again",
            file=shown(path),
        )
    reason = error.strerror if isinstance(error, OSError) else None
    return DataError(f"cannot be read: {reason or error}", file=shown(path))


def check_signature(first: bytes, path: str | Path) -> None:
    """Refuse what is no UTF-8 text by its first bytes.

    Args:
        first: the first bytes or the first line.
        path: the file.

    Raises:
        DataError: it is UTF-16, UTF-32, or compressed data whose name does not say so.
    """
    for mark, what in _SIGNATURES:
        if first.startswith(mark):
            encoding = what.split()[0]
            raise DataError(
                f"{what}, not UTF-8 (it begins with a byte order mark); convert it with: "
                f"iconv -f {encoding} -t UTF-8",
                file=shown(path),
                line=1,
            )
    for mark, what, rest in SIGNATURES:
        if first.startswith(mark):
            raise DataError(f"{what} in a file whose name {rest}", file=shown(path))
    if is_bzip2(first):
        raise DataError(
            "bzip2 data in a file whose name does not end in .bz2; rename it", file=shown(path)
        )


def _length(raw: bytes) -> int:
    return len(raw.removesuffix(b"\n").removesuffix(b"\r"))


def _skip_rest(stream: IO[bytes], raw: bytes) -> None:
    while raw and not raw.endswith(b"\n"):
        raw = stream.readline(_BUFFER)


def _too_long(limit: int) -> Problem:
    return Problem(
        "line too long",
        f"the line is longer than {limit} bytes; split it into shorter lines "
        "(in Python, or raise max_line_bytes)",
    )


def _stray_return(text: str) -> Problem:
    return Problem(
        "carriage return",
        f"a carriage return inside the line, at character {text.index(chr(13)) + 1}; if it ends a "
        "line, convert the file with: tr '\\r' '\\n'; otherwise remove it",
    )


def _nul(raw: bytes) -> Problem:
    return Problem(
        "NUL byte",
        f"NUL byte at byte {raw.index(0) + 1} of the line; is this a binary or UTF-16 file? "
        "Remove the NUL bytes, or convert it with: iconv -f UTF-16 -t UTF-8",
    )


def _not_utf8(raw: bytes, error: UnicodeDecodeError) -> Problem:
    column = len(raw[: error.start].decode("utf-8")) + 1
    return Problem(
        "not UTF-8",
        f"not UTF-8: byte 0x{raw[error.start]:02x} at byte {error.start + 1} of the line "
        f"(column {column}); convert the file with: iconv -f ENCODING -t UTF-8",
    )
