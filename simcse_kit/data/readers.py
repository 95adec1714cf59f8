"""Training rows from files of any format.

Formats: .txt (one sentence a line), .csv, .tsv, .jsonl and .json (one array), each also with .gz,
.bz2 or .xz, and .parquet. Every message about bad input names the file and the line, or the row of
a .parquet file.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from simcse_kit.data.bad_rows import Problem, ReadReport, RowGate
from simcse_kit.data.columns import are_positions, without_number_columns
from simcse_kit.data.documents import read_documents
from simcse_kit.data.files import FileFormat, check_file, format_of
from simcse_kit.data.graded import BENCHMARK_COLUMNS, BENCHMARK_SCORE, is_benchmark
from simcse_kit.data.layouts import RecordLayout, TableLayout
from simcse_kit.data.lines import OnBytes
from simcse_kit.data.parquet import check_text_types
from simcse_kit.data.read_options import DEFAULTS, ReadOptions
from simcse_kit.data.records import Records
from simcse_kit.errors import DataError

__all__ = ["Example", "Kind", "TextRows", "file_kind", "kind_of", "read_all_texts", "read_texts"]

logger = logging.getLogger(__name__)

Kind = Literal["texts", "pairs", "triplets", "labelled", "documents"]
"""What training rows hold."""

TextRows = Generator[tuple[str, ...], None, None]
"""Training rows of one file, each a tuple of texts."""

_KINDS: tuple[Kind, ...] = ("texts", "pairs", "triplets")


def kind_of(columns: int) -> Kind:
    """Return the kind of rows with ``columns`` text columns: 1, 2, or more."""
    return _KINDS[min(columns, 3) - 1]


@dataclass(frozen=True, slots=True)
class Example:
    """One training row.

    Args:
        texts: ``(sentence,)``, ``(anchor, positive)``, or ``(anchor, positive, hard negative,
            ...)``; stripped of surrounding whitespace and never blank.
        label: Number of a labelled row.
        row: Number of the row in the corpus. With ``epoch`` it seeds random augmentation; neither
            counts when examples are compared.
        epoch: Pass over the data that the row is read for.
    """

    texts: tuple[str, ...]
    label: float | None = None
    row: int = field(default=0, compare=False)
    epoch: int = field(default=0, compare=False)


def file_kind(path: str | Path, options: ReadOptions = DEFAULTS) -> Kind:
    """Find out what the rows of a file are, from its header or first rows alone.

    Raises:
        DataError: As :func:`read_texts`, for problems that the first rows show.
    """
    kind, texts = read_texts(path, options)
    with closing(texts):
        return kind


def read_texts(
    path: str | Path,
    options: ReadOptions = DEFAULTS,
    *,
    report: ReadReport | None = None,
    on_bytes: OnBytes | None = None,
) -> tuple[Kind, TextRows]:
    """Read the training rows of a file, in bounded memory.

    The header is read at once, the rows when they are iterated. Labelled rows are two texts and the
    label as it was written: of graded pairs, which a header of two texts and a score shows, or with
    the option ``label``. A row of documents is a sentence and those that follow it. In .jsonl,
    .json and .parquet files the positive may be a list; each item makes a row. A text column with
    numbers in all rows is refused after the last row.

    Args:
        path: A file with one of :data:`~simcse_kit.data.files.SUFFIXES`.
        options: Options of reading.
        report: Counter of skipped rows; ``report.rows`` is not changed.
        on_bytes: Callback, called with the number of bytes after each read from the file.

    Returns:
        The kind of the rows, and an iterator over them.

    Raises:
        DataError: The file cannot be read or is empty, a column is missing, or a row is bad.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "pairs.csv")
        ...     _ = path.write_text("sent0,sent1\\nA cat sat.,A cat sits.\\n", encoding="utf-8")
        ...     kind, rows = read_texts(path)
        ...     print(kind, list(rows))
        ...     print(file_kind(path, ReadOptions(columns=["sent0"])))
        pairs [('A cat sat.', 'A cat sits.')]
        texts
    """
    format = options.format or format_of(path)
    check_file(path)
    benchmark = _is_unnamed(options) and format in ("csv", "tsv") and is_benchmark(Path(path))
    if benchmark:
        format = "tsv"
        options = replace(options, format=format, columns=BENCHMARK_COLUMNS, label=BENCHMARK_SCORE)
    _check_supported(path, format, options)
    if options.documents:
        gate = RowGate(path, options.on_bad_row, report)
        return "documents", read_documents(path, options, gate, on_bytes)
    records = Records(path, options, report=report, on_bytes=on_bytes)
    if format == "txt":
        return "texts", (tuple(fields) for _, fields in records.fields())
    layout = _layout_of(records)
    if isinstance(layout, TableLayout):
        if benchmark:
            layout = replace(layout, width=7, wider=True)
        columns, labelled = len(layout.indices), layout.labelled
        if records.header:
            _check_has_row(records)
    else:
        columns, labelled = len(layout.fixed + layout.negatives), layout.label is not None
        if layout.optional and not _has_negatives(records, layout):
            columns = 2
    rows = without_number_columns(
        _good_rows(records, layout), layout.names, file=path, texts=2 if labelled else None
    )
    return ("labelled" if labelled else kind_of(columns)), rows


def read_all_texts(path: str | Path) -> list[str]:
    """Read the texts of all rows of a file of any kind.

    Raises:
        DataError: As :func:`read_texts`.
    """
    kind, rows = read_texts(path)
    count = 2 if kind == "labelled" else None  # the third is the label
    return [text for row in rows for text in row[:count]]


def _is_unnamed(options: ReadOptions) -> bool:
    """Check whether the options leave it to the file which columns are read."""
    return options.columns is None and options.label is None and not options.documents


def _check_supported(path: str | Path, format: FileFormat, options: ReadOptions) -> None:
    """Check that the format of a file supports the options."""
    columns, label, documents = options.columns, options.label, options.documents
    given = ",".join(columns or ())
    if documents:
        if label is not None or columns is not None:
            raise DataError("documents have no columns; leave out data.label, --columns", file=path)
        if format != "txt":
            raise DataError(
                f"data.documents = {documents} is for .txt files, a sentence a line and a blank "
                f"line after each document; this is a .{format} file",
                file=path,
            )
    elif format not in ("csv", "tsv") and are_positions(columns):
        raise DataError(
            f"positions --columns {given} are for .csv and .tsv files; this is a .{format} file",
            file=path,
        )
    elif format == "txt" and columns is not None:
        raise DataError(
            f"a .txt file has no columns; leave out --columns {given}, or rename the file to .tsv "
            "or .csv",
            file=path,
        )
    elif format == "txt" and label is not None:
        raise DataError(f"a .txt file has no column {label!r}; leave out data.label", file=path)


def _layout_of(records: Records) -> TableLayout | RecordLayout:
    """Choose the text columns of a file."""
    options, path = records.options, records.path
    if records.is_table:
        return TableLayout.of(
            records.columns, options, file=path, line=records.line, format=records.format
        )
    layout = RecordLayout.of(records.columns, options, file=path, line=records.line)
    if records.format != "parquet":
        return layout
    # Only positives and hard negatives may be lists.
    lists = layout.label is None
    names = enumerate((*layout.fixed, *layout.negatives))
    check_text_types(records.schema, [(name, lists and place > 0) for place, name in names], path)
    return layout.for_columns(records.columns)


def _check_has_row(records: Records) -> None:
    """Refuse a table that ends with its header."""
    before = records.gate.report.total_skipped
    if records.peek() is None and records.gate.report.total_skipped == before:
        raise DataError(
            "the file has a header but no row; fix the file or leave it out", file=records.path
        )


def _has_negatives(records: Records, layout: RecordLayout) -> bool:
    """Read the file once more to see whether any row has a hard negative."""
    again = Records(records.path, replace(records.options, on_bad_row="skip"))
    return any(layout.has_negative(record) for _, record in again.fields(layout.names))


def _good_rows(records: Records, layout: TableLayout | RecordLayout) -> TextRows:
    extras = layout.extras if isinstance(layout, RecordLayout) else frozenset()
    ignored: dict[str, None] = {}
    for line, fields in records.fields(layout.names):
        rows = layout.rows(fields)
        if isinstance(rows, Problem):
            records.gate.reject(line, rows)
            continue
        if extras:
            ignored.update(dict.fromkeys(key for key in fields if key in extras))
        yield from rows
    if ignored:
        logger.info("%s: the keys %s are not used", records.path, ", ".join(ignored))
