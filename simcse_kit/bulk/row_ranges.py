"""Ranges of rows of files of sentences, read without decoding the rows before them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Generator, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import IO

from simcse_kit.bulk.sentence_files import SentenceFile
from simcse_kit.data.compression import DAMAGED, NAMES
from simcse_kit.data.lines import open_bytes, unreadable

__all__ = ["RangeReader", "RangeStart", "range_starts"]

_MARK = b"\xef\xbb\xbf"
_PIECE = 1 << 20

RangeStart = tuple[int, int]
"""Number of a file, and where a row begins in it: the byte in the decompressed text of a file of
lines, or the number of the row in another file; all from 0."""


def range_starts(
    files: Sequence[SentenceFile], file_rows: Sequence[int], rows: Sequence[int]
) -> list[RangeStart]:
    """Find where rows begin.

    Args:
        files: The files.
        file_rows: Number of rows of each file.
        rows: Numbers of rows from 0, counted over all files, in ascending order.

    Raises:
        DataError: A file cannot be read.
    """
    starts: list[RangeStart] = []
    first = 0
    for number, (file, count) in enumerate(zip(files, file_rows, strict=True)):
        end = first + count
        wanted = [row - first for row in rows[bisect_left(rows, first) : bisect_left(rows, end)]]
        if wanted and file.has_lines:
            wanted = _bytes_before(file.local(), wanted)
        starts += ((number, start) for start in wanted)
        first = end
    return starts


def _bytes_before(path: Path, rows: Iterable[int]) -> list[int]:
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
    """Reader of ranges of rows.

    A compressed file and one of records stay open between two ranges, so that ascending ranges are
    read in one pass.

    Args:
        files: Files that were checked by :class:`~simcse_kit.bulk.text_source.TextSource`.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "sentences.txt")
        ...     _ = path.write_text("A cat sat.\\nIt rains.\\n", encoding="utf-8")
        ...     files = [SentenceFile(str(path))]
        ...     starts = range_starts(files, [2], [0, 1])
        ...     starts, RangeReader(files).read(starts[1], 1)
        ([(0, 0), (0, 11)], ['It rains.'])
    """

    def __init__(self, files: Sequence[SentenceFile]):
        self._files = files
        self._number = -1
        self._reader: _LineReader | _RecordReader | None = None

    def read(self, start: RangeStart, count: int) -> list[str]:
        """Read sentences.

        Args:
            start: Where the first one begins, from :func:`range_starts`.
            count: Number of sentences; fewer are returned at the end of the last file.

        Raises:
            ConfigError: A remote file cannot be copied.
            DataError: A file cannot be read.
        """
        number, place = start
        texts: list[str] = []
        while len(texts) < count and number < len(self._files):
            texts += self._opened(number).read(place, count - len(texts))
            number, place = number + 1, 0
        return texts

    def _opened(self, number: int) -> _LineReader | _RecordReader:
        if self._reader is None or number != self._number:
            self.close()
            file = self._files[number]
            self._reader = _LineReader(file.local()) if file.has_lines else _RecordReader(file)
            self._number = number
        return self._reader

    def close(self) -> None:
        """Close the file that is open."""
        if self._reader is not None:
            self._reader.close()
        self._reader = None


class _LineReader:
    """Reader of ranges of lines; bad bytes are replaced.

    Args:
        path: File with one sentence per line.
    """

    def __init__(self, path: Path):
        self._path = path
        self._compressed = path.suffix.lower() in NAMES
        self._stream: IO[bytes] | None = None
        self._position = 0

    def read(self, start: int, count: int) -> list[str]:
        """Read the lines from byte ``start`` of the decompressed text on."""
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
        texts = [line.decode("utf-8", "replace").strip() for line in lines]
        while texts and not texts[-1]:  # blank lines at the end of the file
            texts.pop()
        return texts

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
        if self._stream is not None:
            self._stream.close()
        self._stream, self._position = None, 0


class _RecordReader:
    """Reader of ranges of records, which skips the records before them.

    Args:
        file: File of records.
    """

    def __init__(self, file: SentenceFile):
        self._file = file
        self._texts: Generator[str, None, None] | None = None
        self._position = 0

    def read(self, start: int, count: int) -> list[str]:
        """Read the sentences of the records from number ``start`` on."""
        if self._texts is None or self._position > start:
            self.close()
            self._texts = (text for text in self._file.read())
        skipped = start - self._position
        found = list(islice(self._texts, skipped, skipped + count))
        self._position = start + len(found)
        return found

    def close(self) -> None:
        if self._texts is not None:
            self._texts.close()
        self._texts, self._position = None, 0
