"""The kind and the rows of one file of a given format."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from simcse_kit.data.bad_rows import OnBadRow, Problem, RowGate
from simcse_kit.data.columns import are_positions
from simcse_kit.data.delimited import read_rows
from simcse_kit.data.json_rows import json_records
from simcse_kit.data.lines import OnBytes
from simcse_kit.data.numeric_columns import without_number_columns
from simcse_kit.data.parquet import parquet_layout, parquet_records
from simcse_kit.data.records import ObjectLayout
from simcse_kit.data.row_layouts import table_layout
from simcse_kit.errors import DataError

__all__ = ["Kind", "Request", "Rows", "from_json", "from_parquet", "from_table", "kind_of"]

logger = logging.getLogger(__name__)

Kind = Literal["texts", "pairs", "triplets", "labelled", "documents"]

Rows = Generator[tuple[str, ...], None, None]
"""Rows of one file, each as the bare tuple of its texts."""

_KINDS: tuple[Kind, ...] = ("texts", "pairs", "triplets")
_Records = Iterator[tuple[int, dict[str, Any]]]


def kind_of(columns: int) -> Kind:
    """The kind of rows with this many text columns: 1, 2, or more."""
    return _KINDS[min(columns, 3) - 1]


@dataclass(frozen=True, slots=True)
class Request:
    """The arguments of one reading; see :func:`~simcse_kit.data.readers.read_texts`."""

    path: str | Path
    columns: tuple[str, ...] | None
    gate: RowGate
    on_bad_row: OnBadRow
    max_line_bytes: int
    on_bytes: OnBytes | None
    label: str | None

    def kind(self, columns: int) -> Kind:
        """The kind of rows with this many text columns."""
        return kind_of(columns) if self.label is None else "labelled"

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """The rows of fields of a .txt, .csv or .tsv file."""
        return read_rows(
            self.path,
            on_bad_row=self.on_bad_row,
            report=self.gate.report,
            max_line_bytes=self.max_line_bytes,
            on_bytes=self.on_bytes,
        )

    def checked(self, rows: Iterable[tuple[str, ...]], names: Sequence[str]) -> Rows:
        """The rows, once it is known that no text column holds numbers only."""
        texts = None if self.label is None else 2
        yield from without_number_columns(rows, names, file=self.path, texts=texts)

    def unreadable(self) -> int:
        """Rows skipped so far, blank lines aside."""
        report = self.gate.report
        return report.total_skipped - report.skipped.get("blank line", 0)

    def no_row(self, what: str) -> DataError:
        """The error of a file without a row."""
        return DataError(f"{what}; fix the file or leave it out", file=self.path)


def from_table(request: Request, separator: str) -> tuple[Kind, Rows]:
    """The kind and the rows of a .csv or .tsv file.

    Args:
        request: the arguments.
        separator: ``comma`` or ``tab``, named in messages.

    Raises:
        DataError: the header is bad, or there is no row.
    """
    rows, before = request.rows(), request.unreadable()
    first = next(rows, None)
    has_header = not are_positions(request.columns)
    if has_header and request.unreadable() > before:
        # Without this the first row after a broken header would be taken for the header.
        for _ in read_rows(request.path, max_line_bytes=request.max_line_bytes):
            break
    if first is None:
        raise request.no_row("every row is bad")
    line, fields = first
    layout = table_layout(
        fields,
        request.columns,
        file=request.path,
        line=line,
        separator=separator,
        label=request.label,
    )
    names = [fields[place] if has_header else str(place) for place in layout.indices]
    if has_header:
        before = request.gate.report.total_skipped
        second = next(rows, None)
        if second is None and request.gate.report.total_skipped == before:
            raise request.no_row("the file has a header but no row")
        first = second
    every = chain(() if first is None else (first,), rows)
    good = _good(((number, layout.texts(row)) for number, row in every), request.gate)
    return request.kind(len(layout.indices)), request.checked(good, names)


def from_json(request: Request, format: str) -> tuple[Kind, Rows]:
    """The kind and the rows of a .jsonl or .json file.

    Raises:
        DataError: the first record is bad, or there is none.
    """

    def read(gate: RowGate, on_bytes: OnBytes | None) -> _Records:
        return json_records(
            request.path,
            format,
            gate,
            max_line_bytes=request.max_line_bytes,
            on_bytes=on_bytes,
        )

    records = read(request.gate, request.on_bytes)
    first = next(records, None)
    if first is None:
        raise request.no_row("every row is bad")
    layout = ObjectLayout.of(
        list(first[1]), request.columns, file=request.path, line=first[0], label=request.label
    )
    every = chain((first,), records)
    if layout.optional and not layout.has_negative(first[1]):
        again = read(RowGate(request.path, "skip"), None)
        return _of_records(request, layout, every, again)
    return _of_records(request, layout, every)


def from_parquet(request: Request) -> tuple[Kind, Rows]:
    """The kind and the rows of a .parquet file.

    Raises:
        DataError: see :func:`~simcse_kit.data.parquet.parquet_layout`.
    """
    layout = parquet_layout(request.path, request.columns, label=request.label)

    def read(gate: RowGate, on_bytes: OnBytes | None) -> _Records:
        return parquet_records(
            request.path,
            layout,
            gate,
            max_line_bytes=request.max_line_bytes,
            on_bytes=on_bytes,
        )

    every = read(request.gate, request.on_bytes)
    if layout.optional:
        return _of_records(request, layout, every, read(RowGate(request.path, "skip"), None))
    return _of_records(request, layout, every)


def _of_records(
    request: Request, layout: ObjectLayout, records: _Records, again: _Records | None = None
) -> tuple[Kind, Rows]:
    """The kind and the rows of records.

    Args:
        request: the arguments.
        layout: which keys hold the texts.
        records: all of them.
        again: the records once more, where hard negatives are optional and only the whole file
            shows whether it has any.
    """
    columns = len(layout.fixed + layout.negatives)
    if again is not None and not any(layout.has_negative(record) for _, record in again):
        columns = 2
    rows = request.checked(_good_records(records, layout, request.gate), layout.read_keys())
    return request.kind(columns), rows


def _good(
    numbered: Iterator[tuple[int, tuple[str, ...] | Problem]], gate: RowGate
) -> Iterator[tuple[str, ...]]:
    for line, texts in numbered:
        if isinstance(texts, Problem):
            gate.reject(line, texts)
        else:
            yield texts


def _good_records(
    records: _Records, layout: ObjectLayout, gate: RowGate
) -> Iterator[tuple[str, ...]]:
    ignored: dict[str, None] = {}
    for line, record in records:
        rows = layout.rows(record)
        if isinstance(rows, Problem):
            gate.reject(line, rows)
            continue
        if layout.extras:
            ignored.update(dict.fromkeys(key for key in record if key in layout.extras))
        yield from rows
    if ignored:
        logger.info("%s: the keys %s are not used", gate.file, ", ".join(ignored))
