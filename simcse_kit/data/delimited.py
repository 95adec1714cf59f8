"""Rows of fields from .txt, .csv and .tsv files."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from simcse_kit.data.bad_rows import OnBadRow, Problem, ReadReport, RowGate
from simcse_kit.data.files import format_of
from simcse_kit.data.lines import MAX_LINE_BYTES, OnBytes, scan, shown
from simcse_kit.errors import DataError

__all__ = ["read_rows"]

_Scan = Iterator[tuple[int, str, Problem | None]]
_Row = tuple[int, list[str]]


def read_rows(
    path: str | Path,
    *,
    on_bad_row: OnBadRow = "error",
    report: ReadReport | None = None,
    max_line_bytes: int = MAX_LINE_BYTES,
    format: Literal["txt", "csv", "tsv"] | None = None,
    on_bytes: OnBytes | None = None,
) -> Iterator[_Row]:
    """The rows of a text file, header row included, each field stripped of surrounding whitespace.

    A .txt row is one field. A .tsv row is split at every tab; quote characters are text. A .csv row
    follows RFC 4180: a quoted field may hold commas, doubled quotes and line ends. Blank lines at
    the end of the file are passed over; anywhere else they are bad rows. How many fields a row has
    is not checked here.

    Args:
        path: the file.
        on_bad_row: what to do about a bad row: raise, or skip it and count it in ``report``.
        report: counts the skipped rows. Its ``rows`` is left to the caller, who alone knows which
            rows are good.
        max_line_bytes: the longest line accepted; for .csv also the longest row.
        format: how to split, whatever the suffix says.
        on_bytes: told of the bytes read from the file.

    Yields:
        ``(number of the line where the row begins, fields)``.

    Raises:
        DataError: the file cannot be read or is empty, or a row is bad.
    """
    gate = RowGate(shown(path), on_bad_row, report)
    chosen = format or format_of(path)
    lines = scan(path, max_line_bytes=max_line_bytes, on_bytes=on_bytes, returns=chosen == "csv")
    if chosen == "csv":
        return _csv_rows(lines, gate, max_line_bytes)
    if chosen in ("txt", "tsv"):
        return _line_rows(lines, gate, split=chosen == "tsv")
    raise DataError(
        f"a .{chosen} file is not read as rows of fields; use .txt, .csv or .tsv", file=path
    )


def _line_rows(lines: _Scan, gate: RowGate, *, split: bool) -> Iterator[_Row]:
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
    """A quoted field has run past the limit."""


class _CsvFeed:
    """Hands lines to the csv module and remembers where the row began and what was bad in it.

    Bad lines are handed on too: aborting inside a quoted field would make its remaining lines look
    like rows of their own.
    """

    def __init__(self, lines: _Scan, limit: int):
        self._lines = lines
        self._limit = limit
        self._size = 0
        self.last = 0
        self.start = 0
        self.problem: Problem | None = None

    def begin(self) -> None:
        """Forget the previous row."""
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


def _csv_rows(lines: _Scan, gate: RowGate, limit: int) -> Iterator[_Row]:
    # The module's own limit (131,072 characters a field) is process-wide; it is only ever raised,
    # so that readers side by side cannot disturb each other.
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
        "split the row (in Python, or raise max_line_bytes)",
    )
