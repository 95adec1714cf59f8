"""Rows of fields from .txt, .csv and .tsv files."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from simcse_kit.data.bad_rows import Problem, RowGate
from simcse_kit.data.files import FileFormat
from simcse_kit.data.lines import OnBytes, scan
from simcse_kit.errors import DataError

__all__ = ["delimited_rows", "ragged_row"]

_Lines = Iterator[tuple[int, str, Problem | None]]
_Fields = tuple[int, list[str]]


def delimited_rows(
    path: str | Path, format: FileFormat, gate: RowGate, limit: int, on_bytes: OnBytes | None = None
) -> Iterator[_Fields]:
    """Read the rows of a text file, header included, with each field stripped of whitespace.

    A .txt row is one field. A .tsv row is split at every tab; quote characters are text. A .csv row
    follows RFC 4180: a quoted field may hold commas, doubled quotes and line ends. Blank lines at
    the end of the file are ignored; anywhere else they are bad rows. The number of fields in a row
    is not checked here. ``limit`` is the longest line, and the longest .csv row, in bytes.
    """
    lines = scan(path, max_line_bytes=limit, on_bytes=on_bytes, returns=format == "csv")
    if format == "csv":
        return _csv_rows(lines, gate, limit)
    return _line_rows(lines, gate, split=format == "tsv")


def ragged_row(expected: int, found: int, format: FileFormat) -> Problem:
    """Describe a row with another number of fields than the header."""
    remedy = "quote a field that holds a comma" if format == "csv" else "check the tabs"
    return Problem(
        "wrong number of fields",
        f"ragged row: expected {expected} fields, found {found}; {remedy}",
    )


def _line_rows(lines: _Lines, gate: RowGate, *, split: bool) -> Iterator[_Fields]:
    number = 0
    for number, text, problem in lines:
        fields = [field.strip() for field in text.split("\t")] if split else [text.strip()]
        if problem is None:
            if fields == [""]:
                gate.blank(number)
                continue
            if gate.blanks:
                gate.settle()
            yield number, fields
        else:
            gate.settle()
            gate.reject(number, problem)
    gate.finish(number)


class _RowTooLongError(Exception):
    """A quoted field exceeds the limit."""


class _CsvFeed:
    """Iterator over lines for the csv module that records where a row begins and its problem.

    Bad lines are passed to the csv module too: stopping inside a quoted field would make its
    remaining lines look like rows of their own.
    """

    def __init__(self, lines: _Lines, limit: int):
        self._lines = lines
        self._limit = limit
        self._size = 0
        self.last = 0
        self.start = 0
        self.problem: Problem | None = None

    def begin(self) -> None:
        """Start a new row."""
        self.start = self._size = 0
        self.problem = None

    def __iter__(self) -> _CsvFeed:
        return self

    def __next__(self) -> str:
        self.last, text, problem = next(self._lines)
        self.start = self.start or self.last
        self._size += len(text)
        if problem is not None and self.problem is None:
            if self.last > self.start:
                message = f"{problem.message} (on line {self.last}, inside a quoted field)"
                problem = Problem(problem.reason, message)
            self.problem = problem
        if self._size > self._limit and self.last > self.start:
            raise _RowTooLongError
        return text


def _csv_rows(lines: _Lines, gate: RowGate, limit: int) -> Iterator[_Fields]:
    # The limit of the csv module (131,072 characters in a field) is one for the whole process. It
    # is only ever raised, so that two open files cannot disturb each other.
    if csv.field_size_limit() < limit + 2:
        csv.field_size_limit(limit + 2)
    feed = _CsvFeed(lines, limit)
    reader = csv.reader(feed, strict=True)
    first = True
    while True:
        feed.begin()
        fields: list[str] = []
        try:
            fields = [field.strip() for field in next(reader)]
        except StopIteration:
            break
        except csv.Error as error:
            feed.problem = feed.problem or _bad_quoting(str(error))
        except _RowTooLongError:
            feed.problem = _row_too_long(limit)
        if feed.problem is not None:
            gate.settle()
            gate.reject(feed.start, feed.problem)
            continue
        if fields in ([], [""]):
            gate.blank(feed.start)
            continue
        gate.settle()
        if first and len(fields) == 1 and "\t" in fields[0]:
            raise DataError(
                "the first row of this .csv file has tabs but no commas; if tabs separate its "
                "columns, give it the suffix .tsv",
                file=gate.file,
                line=feed.start,
            )
        first = False
        yield feed.start, fields
    gate.finish(feed.last)


def _bad_quoting(error: str) -> Problem:
    if "end of data" in error:
        what = "a quoted field is never closed"
    elif "expected after" in error:
        what = "text after a closing quote; write a quote inside a quoted field twice"
    elif "new-line character" in error:
        what = "a carriage return in a field without quotes; quote the field"
    else:
        what = error
    return Problem("bad csv quoting", f"bad csv: {what}")


def _row_too_long(limit: int) -> Problem:
    return Problem(
        "line too long",
        f"the row that begins here is longer than {limit} bytes; is a quote left open? Otherwise "
        "split the row, or raise ReadOptions.max_line_bytes in Python",
    )
