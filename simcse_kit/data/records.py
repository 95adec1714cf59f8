"""Records of a file of any format: the one reader of training, data tools and evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from simcse_kit.data.bad_rows import Problem, ReadReport, RowGate, shorten
from simcse_kit.data.columns import check_names, choose_columns
from simcse_kit.data.delimited import delimited_rows, ragged_row
from simcse_kit.data.files import FileFormat, check_file, format_of
from simcse_kit.data.json_records import json_array, json_lines
from simcse_kit.data.lines import OnBytes, shown
from simcse_kit.data.parquet import parquet_records, parquet_schema
from simcse_kit.data.read_options import DEFAULTS, ReadOptions
from simcse_kit.errors import DataError
from simcse_kit.registry import closest
from simcse_kit.utils.progress import progress_bar

__all__ = ["Record", "Records", "read_records", "reading_progress"]

Record = dict[str, Any]
"""One row of a file: column name -> value."""


def read_records(
    path: str | Path,
    options: ReadOptions = DEFAULTS,
    *,
    report: ReadReport | None = None,
    keys: Sequence[str] | None = None,
    on_bytes: OnBytes | None = None,
) -> Iterator[tuple[int, Any]]:
    """Read a file as pairs of line number and fields.

    The fields of a .txt, .csv or .tsv row are a list of stripped strings, and a header line is a
    row like any other. The fields of a .jsonl, .json or .parquet row are a dict.

    Args:
        path: The file.
        options: Options of reading.
        report: Counter of skipped rows; ``report.rows`` is not changed.
        keys: Columns to read of a .parquet file; None reads all.
        on_bytes: Callback, called with the number of bytes after each read from the file.

    Raises:
        DataError: The file cannot be read or is empty, or a row is bad.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "pairs.tsv")
        ...     _ = path.write_text("4.5\\tA cat sat.\\tA cat sits.\\n", encoding="utf-8")
        ...     list(read_records(path))
        [(1, ['4.5', 'A cat sat.', 'A cat sits.'])]
    """
    format = options.format or format_of(path)
    skip_blank = options.skip_blank and format == "jsonl"
    gate = RowGate(shown(path), options.on_bad_row, report, skip_blank=skip_blank)
    limit = options.max_line_bytes
    if format == "jsonl":
        return json_lines(path, gate, limit, on_bytes)
    if format == "json":
        return json_array(path, gate, limit, on_bytes)
    if format == "parquet":
        return parquet_records(path, gate, limit, keys, on_bytes)
    return delimited_rows(path, format, gate, limit, on_bytes)


class Records:
    """The records of one file as dicts; iterate once for ``(line, record)``.

    Args:
        path: The file.
        options: Options of reading.
        report: Counter of skipped rows; ``report.rows`` is not changed.
        on_bytes: Callback, called with the number of bytes after each read from the file.

    Attributes:
        format: Format of the file.
        columns: Names of the columns; of a .jsonl or .json file, those of the first record.
        line: Line of the header or first record; None for .parquet.
        gate: Handling of rows that are rejected after reading.

    Raises:
        DataError: The file cannot be read or is empty, or every row is bad.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "pairs.csv")
        ...     _ = path.write_text("id,question\\n1,Where is it?\\n", encoding="utf-8")
        ...     records = Records(path)
        ...     print(records.columns, list(records))
        ('id', 'question') [(2, {'id': '1', 'question': 'Where is it?'})]
    """

    def __init__(
        self,
        path: str | Path,
        options: ReadOptions = DEFAULTS,
        *,
        report: ReadReport | None = None,
        on_bytes: OnBytes | None = None,
    ):
        self.path = check_file(path)
        self.options = options
        self.format: FileFormat = options.format or format_of(path)
        self.header = options.header or not self.is_table
        self.gate = RowGate(path, options.on_bad_row, report)
        self.line: int | None = 1
        self.columns: tuple[str, ...] = ("text",)
        self.schema: Any = None
        self._on_bytes = on_bytes
        self._rows: Iterator[tuple[int, Any]] = iter(())
        if self.format == "parquet":
            self.line, self.schema = None, parquet_schema(path)
            self.columns = tuple(self.schema.names)
            return
        self._rows = read_records(path, options, report=self.gate.report, on_bytes=on_bytes)
        if self.format != "txt":
            self.columns = self._first()

    @property
    def is_table(self) -> bool:
        """Whether rows are fields separated by commas or tabs."""
        return self.format in ("csv", "tsv")

    def _first(self) -> tuple[str, ...]:
        """Read the header or the first record."""
        before = self._unreadable()
        first = next(self._rows, None)
        if self.is_table and self.header and self._unreadable() > before:
            # Otherwise the first row after a broken header would be used as the header.
            next(read_records(self.path, replace(self.options, on_bad_row="error")))
        if first is None:
            raise DataError("every row is bad; fix the file or leave it out", file=self.path)
        self.line, fields = first
        if self.is_table and self.header:
            return tuple(fields)
        self._rows = chain((first,), self._rows)
        return tuple(map(str, range(len(fields)))) if self.is_table else tuple(fields)

    def peek(self) -> tuple[int, Any] | None:
        """Return the next row of a text file without removing it; None at the end."""
        row = next(self._rows, None)
        if row is not None:
            self._rows = chain((row,), self._rows)
        return row

    def _unreadable(self) -> int:
        """Return the number of rows skipped so far, without blank lines."""
        report = self.gate.report
        return report.total_skipped - report.skipped.get("blank line", 0)

    def fields(self, keys: Sequence[str] | None = None) -> Iterator[tuple[int, Any]]:
        """Yield the rows below the header as :func:`read_records` does, but of any width."""
        if self.format != "parquet":
            return self._rows
        report, on_bytes = self.gate.report, self._on_bytes
        return read_records(self.path, self.options, report=report, keys=keys, on_bytes=on_bytes)

    def __iter__(self) -> Iterator[tuple[int, Record]]:
        if self.format == "txt":
            return ((line, {"text": fields[0]}) for line, fields in self._rows)
        if not self.is_table:
            return self.fields()
        check_names(self.columns, file=self.path, line=self.line, blank=True)
        return self._table()

    def _table(self) -> Iterator[tuple[int, Record]]:
        width = len(self.columns)
        for line, fields in self._rows:
            if len(fields) == width:
                yield line, dict(zip(self.columns, fields, strict=True))
            else:
                self.gate.reject(line, ragged_row(width, len(fields), self.format))

    def column(self, wanted: str | None, known: Sequence[str], *, what: str, flag: str) -> str:
        """Find the column ``wanted`` by the user, or the first of the ``known`` names.

        Raises:
            DataError: No such column. The message names ``what`` it holds and the ``flag``.
        """
        columns = shorten(",".join(self.columns), 300)
        if wanted is not None:
            if wanted not in self.columns:
                near = closest(wanted, list(self.columns))
                raise DataError(
                    f"no column {wanted!r}{near}; the columns are {columns}", file=self.path
                )
            return wanted
        by_name: dict[str, str] = {name.lower(): name for name in reversed(self.columns)}
        for name in known:
            if name in by_name:
                return by_name[name]
        raise DataError(
            f"the columns {columns} have none for the {what} ({', '.join(known)}); name it with "
            f"{flag}",
            file=self.path,
        )

    def text_columns(self) -> tuple[str, ...]:
        """Choose the text columns: those of the options, or those that training would read.

        Raises:
            DataError: A column is missing, or the header is not recognised.
        """
        wanted = self.options.columns
        if self.format == "txt":
            if wanted:
                raise DataError("a .txt file has no columns; leave out --columns", file=self.path)
            return self.columns
        return choose_columns(
            self.columns, wanted, file=self.path, line=self.line, lists=not self.is_table
        )

    def texts(self, record: Record, columns: Sequence[str]) -> tuple[str, ...] | Problem:
        """Return the texts in ``columns``, stripped; lists are flattened and null is left out."""
        found: list[str] = []
        for name in columns:
            value = record.get(name)
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, str):
                    found.append(item.strip())
                elif item is not None:
                    kind = type(item).__name__
                    return Problem("value is not text", f"{name!r} is {kind}, not a string")
        if not found or not found[0]:
            return Problem("blank anchor", f"the text in column {columns[0]!r} is blank; fill it")
        return tuple(found)

    def with_texts(self, columns: Sequence[str]) -> Iterator[tuple[int, Record, tuple[str, ...]]]:
        """Yield line, record and :meth:`texts` of every row, and reject rows without texts."""
        for line, record in self:
            texts = self.texts(record, columns)
            if isinstance(texts, Problem):
                self.gate.reject(line, texts)
            else:
                yield line, record, texts


@contextmanager
def reading_progress(paths: Iterable[str | Path]) -> Iterator[OnBytes]:
    """Show a bar over the bytes of files, and give the callback that moves it."""
    total = sum(Path(path).stat().st_size for path in paths if Path(path).is_file())
    with progress_bar(total, desc="reading", unit="B", unit_scale=True, delay=2) as bar:
        yield bar.update
