"""Raw lines of text files: opening, decompression, decoding, and problems of a single line.

Memory is bounded by the line limit, even for an endless line.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Iterator
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
from simcse_kit.errors import DataError

__all__ = [
    "MAX_LINE_BYTES",
    "SAMPLE",
    "STDIN",
    "OnBytes",
    "TextSample",
    "check_signature",
    "open_bytes",
    "read_lines",
    "scan",
    "shown",
    "unreadable",
]

MAX_LINE_BYTES = 1_000_000
"""Longest line accepted by default, in bytes without the line end."""

SAMPLE = 1024
"""Smallest size of a :class:`Sample` of a longer stream."""

STDIN = "-"
"""Path that makes :func:`read_lines` read standard input."""

OnBytes = Callable[[int], None]
"""Callback, called with the number of bytes after each read, before decompression."""

_BUFFER = 1 << 20
_SIGNATURES = (
    # UTF-32 first: its little-endian mark begins with the mark of UTF-16.
    (b"\xff\xfe\x00\x00", "UTF-32 text"),
    (b"\x00\x00\xfe\xff", "UTF-32 text"),
    (b"\xff\xfe", "UTF-16 text"),
    (b"\xfe\xff", "UTF-16 text"),
)


class _CountedFile(io.FileIO):
    """Raw file that reports the number of bytes of each read."""

    def __init__(self, path: str | Path, on_bytes: OnBytes | None):
        super().__init__(path, "r")
        self._on_bytes = on_bytes

    def readinto(self, buffer: Any, /) -> int | None:
        count = super().readinto(buffer)
        if count and self._on_bytes is not None:
            self._on_bytes(count)
        return count


def shown(path: str | Path) -> str:
    """Return the name of ``path`` for messages."""
    return "<standard input>" if str(path) == STDIN else str(path)


def scan(
    path: str | Path,
    *,
    max_line_bytes: int = MAX_LINE_BYTES,
    on_bytes: OnBytes | None = None,
    returns: bool = False,
) -> Iterator[tuple[int, str, Problem | None]]:
    r"""Read the physical lines of a text file, good or bad.

    A line ends at ``\n`` only; the line end (``\n`` or ``\r\n``) is kept in the text. A UTF-8 byte
    order mark is dropped. A file whose name ends in ``.gz``, ``.bz2`` or ``.xz`` is decompressed.
    The rest of a line over the limit is skipped when the next line is asked for.

    Args:
        path: The file.
        max_line_bytes: Longest line accepted.
        on_bytes: Callback, called with the number of bytes after each read from the file.
        returns: Whether a line may contain carriage returns, as JSON and quoted fields may.
            Elsewhere they are line ends of another system, which would join many rows into one.

    Yields:
        ``(line number from 1, text, problem)``. The text of a line with a problem is only good for
        finding the end of a quoted field: undecodable bytes are escaped, and it is empty for a line
        over the limit.

    Raises:
        DataError: The file as a whole cannot be read: it is missing, not a regular file, UTF-16,
            compressed without the suffix, or damaged.
    """
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
    keep_blank: bool = False,
) -> Iterator[str]:
    """Read the lines of a plain text file, stripped of surrounding whitespace.

    Args:
        path: A file of any name, decompressed if it ends in ``.gz``, ``.bz2`` or ``.xz``; ``-``
            for standard input.
        on_bad_row: ``error`` raises at the first bad line; ``skip`` skips and counts bad lines.
        report: Counter of good and skipped lines.
        keep_blank: Whether a blank line is given as ``""``. Otherwise blank lines are ignored at
            the end of the file and are bad lines anywhere else.

    Raises:
        DataError: The file cannot be read or is empty, or a line is bad.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "sentences.txt")
        ...     _ = path.write_text("A cat sat.\\nIt rains.\\n", encoding="utf-8")
        ...     list(read_lines(path))
        ['A cat sat.', 'It rains.']
    """
    gate = RowGate(shown(path), on_bad_row, report)
    number = 0
    for number, line, problem in scan(path):
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


class TextSample:
    """Items of a stream at equal distances: all of up to 2,047, else 1,024 to 2,047 of them.

    Args:
        stream: Items, read to the end.

    Attributes:
        items: The sample, in the order of the stream.
        seen: Number of items in the stream.
    """

    def __init__(self, stream: Iterable[str]):
        self.items: list[str] = []
        self.seen = 0
        step = 1
        for item in stream:
            if self.seen % step == 0:
                self.items.append(item)
                if len(self.items) == 2 * SAMPLE:
                    self.items = self.items[::2]
                    step *= 2
            self.seen += 1


def open_bytes(
    path: str | Path, on_bytes: OnBytes | None = None
) -> AbstractContextManager[IO[bytes]]:
    """Open a file or standard input for reading bytes, decompressed by its suffix.

    Raises:
        DataError: The file is missing or not a regular file.
        OSError: The file cannot be opened.
    """
    if str(path) == STDIN:
        return nullcontext(sys.stdin.buffer)
    raw = _CountedFile(check_file(path), on_bytes)
    suffix = Path(path).suffix.lower()
    if suffix in NAMES:
        return decompressed(raw, suffix, _BUFFER)
    return io.BufferedReader(raw, _BUFFER)


def unreadable(path: str | Path, error: Exception, where: str = "") -> DataError:
    """Make the error of a file that cannot be read to its end, because of one of ``DAMAGED``."""
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
    """Refuse UTF-16, UTF-32, and compressed data under another name, by the first bytes.

    Raises:
        DataError: The first bytes show such data.
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
        f"the line is longer than {limit} bytes; split it into shorter lines, "
        "or raise ReadOptions.max_line_bytes in Python",
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
