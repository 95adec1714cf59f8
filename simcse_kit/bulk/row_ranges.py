"""Ranges of rows of a text file, read without decoding the rows before them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import IO

from simcse_kit.data.compression import DAMAGED, NAMES
from simcse_kit.data.lines import open_bytes, unreadable

__all__ = ["RangeReader", "range_starts"]

_MARK = b"\xef\xbb\xbf"
_PIECE = 1 << 20


def range_starts(path: str, rows: Iterable[int]) -> list[int]:
    """Find the bytes at which rows begin, in the decompressed text.

    Args:
        path: Text file with one sentence per line.
        rows: Numbers of rows from 0, in ascending order.

    Raises:
        DataError: The file cannot be read.
    """
    starts: list[int] = []
    row = start = 0
    try:
        with open_bytes(path) as stream:
            for wanted in rows:
                start += sum(map(len, islice(stream, wanted - row)))
                row = wanted
                starts.append(start)
    except (*DAMAGED, OSError) as error:
        raise unreadable(path, error) from None
    return starts


class RangeReader:
    """Reader of ranges of a text file.

    A compressed file stays open between two ranges, so that ascending ranges are read in one pass.

    Args:
        path: Text file with one sentence per line, which was checked by
            :class:`~simcse_kit.bulk.text_source.TextSource`; bad bytes are replaced.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "sentences.txt")
        ...     _ = path.write_text("A cat sat.\\nIt rains.\\n", encoding="utf-8")
        ...     starts = range_starts(str(path), [0, 1])
        ...     starts, RangeReader(str(path)).read(starts[1], 1)
        ([0, 11], ['It rains.'])
    """

    def __init__(self, path: str):
        self._path = path
        self._compressed = Path(path).suffix.lower() in NAMES
        self._stream: IO[bytes] | None = None
        self._position = 0

    def read(self, start: int, count: int) -> list[str]:
        """Read sentences.

        Args:
            start: Byte at which the first one begins, from :func:`range_starts`.
            count: Number of sentences; fewer are returned at the end of the file.

        Raises:
            DataError: The file cannot be read.
        """
        try:
            if not self._compressed:
                with open_bytes(self._path) as stream:
                    stream.seek(start)
                    lines = list(islice(stream, count))
            else:
                lines = list(islice(self._opened_at(start), count))
                self._position += sum(map(len, lines))
        except (*DAMAGED, OSError) as error:
            raise unreadable(self._path, error) from None
        if lines and start == 0:
            lines[0] = lines[0].removeprefix(_MARK)
        return [line.decode("utf-8", "replace").strip() for line in lines]

    def _opened_at(self, start: int) -> IO[bytes]:
        """Return the decompressed stream, read up to a byte."""
        if self._stream is None or self._position > start:
            self.close()
            self._stream = open_bytes(self._path).__enter__()
        while self._position < start:
            piece = self._stream.read(min(_PIECE, start - self._position))
            if not piece:
                break
            self._position += len(piece)
        return self._stream

    def close(self) -> None:
        """Close the file."""
        if self._stream is not None:
            self._stream.close()
        self._stream, self._position = None, 0
