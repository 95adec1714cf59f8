"""Training rows from text files of any supported format.

Formats: .txt (one sentence a line), .csv, .tsv, .jsonl and .json (one array), each also with .gz,
.bz2 or .xz, and .parquet. Every message about bad input names the file and the line (the row, for
.parquet).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from simcse_kit.data.bad_rows import OnBadRow, ReadReport, RowGate
from simcse_kit.data.columns import are_positions, check_columns, check_label
from simcse_kit.data.delimited import read_rows
from simcse_kit.data.documents import read_documents
from simcse_kit.data.files import SUFFIXES, check_file, find_files, format_of
from simcse_kit.data.formats import (
    Kind,
    Request,
    Rows,
    from_json,
    from_parquet,
    from_table,
    kind_of,
)
from simcse_kit.data.lines import MAX_LINE_BYTES, OnBytes, read_lines
from simcse_kit.errors import DataError

__all__ = [
    "MAX_LINE_BYTES",
    "SUFFIXES",
    "Example",
    "Kind",
    "OnBadRow",
    "ReadReport",
    "Rows",
    "file_kind",
    "find_files",
    "kind_of",
    "read_examples",
    "read_lines",
    "read_rows",
    "read_texts",
]


@dataclass(frozen=True, slots=True)
class Example:
    """One training row.

    Args:
        texts: ``(sentence,)``, ``(anchor, positive)``, or ``(anchor, positive, hard negative,
            ...)``; stripped of surrounding whitespace and never blank.
        label: the number of a labelled row.
        row: its number in the corpus; with ``epoch`` the key of its random augmentation, and no
            part of what makes two examples equal.
        epoch: the pass over the data that it was read for.
    """

    texts: tuple[str, ...]
    label: float | None = None
    row: int = field(default=0, compare=False)
    epoch: int = field(default=0, compare=False)


def read_examples(
    path: str | Path,
    *,
    columns: Sequence[str] | None = None,
    on_bad_row: OnBadRow = "error",
    report: ReadReport | None = None,
    max_line_bytes: int = MAX_LINE_BYTES,
) -> Iterator[Example]:
    """The training rows of one file, in bounded memory.

    Args:
        path: a file with one of :data:`SUFFIXES`.
        columns: names of the anchor, positive and hard negative columns, or their positions
            from 0 (``("0", "1")``) in a .csv or .tsv file with no header line. None: recognise the
            header.
        on_bad_row: what to do about a bad row: raise, or skip it and count it in ``report``.
        report: counts good rows and skipped ones.
        max_line_bytes: the longest line accepted.

    Raises:
        DataError: the file cannot be read, is empty, has not the columns, or a row is bad.
        ConfigError: an argument is wrong.
    """
    report = ReadReport() if report is None else report
    _, texts = read_texts(
        path,
        columns=columns,
        on_bad_row=on_bad_row,
        report=report,
        max_line_bytes=max_line_bytes,
    )
    for row in texts:
        report.rows += 1
        yield Example(row)


def file_kind(
    path: str | Path,
    *,
    columns: Sequence[str] | None = None,
    on_bad_row: OnBadRow = "error",
    max_line_bytes: int = MAX_LINE_BYTES,
    label: str | None = None,
    documents: int = 0,
) -> Kind:
    """What the rows of a file are, from its header or first row alone.

    Raises:
        DataError: as :func:`read_examples`, as far as the first row shows it.
    """
    kind, texts = read_texts(
        path,
        columns=columns,
        on_bad_row=on_bad_row,
        max_line_bytes=max_line_bytes,
        label=label,
        documents=documents,
    )
    with closing(texts):
        return kind


def read_texts(
    path: str | Path,
    *,
    columns: Sequence[str] | None = None,
    on_bad_row: OnBadRow = "error",
    report: ReadReport | None = None,
    max_line_bytes: int = MAX_LINE_BYTES,
    on_bytes: OnBytes | None = None,
    label: str | None = None,
    documents: int = 0,
) -> tuple[Kind, Rows]:
    """The kind of a file and its rows as bare tuples; see :func:`read_examples`.

    The header is read at once. ``report.rows`` is left to the caller; ``on_bytes`` is called with
    the number of bytes read from the file. With ``label``, the name or position of a column, rows
    are labelled: two texts, and the label as it was written. With ``documents``, a .txt file holds
    documents, and a row is a sentence and those that come next, ``documents`` of them at most. In
    .jsonl, .json and .parquet files the positive may be a list: each of them makes a row. A text
    column with numbers in all rows is refused when the last row is read.
    """
    wanted = check_columns(columns)
    request = Request(
        path,
        wanted,
        RowGate(path, on_bad_row, report),
        on_bad_row,
        max_line_bytes,
        on_bytes,
        check_label(label, wanted),
    )
    format = format_of(path)
    check_file(path)
    if documents:
        if label is not None or wanted is not None:
            raise DataError("documents have no columns; leave out data.label, --columns", file=path)
        if format != "txt":
            raise DataError(
                f"data.documents = {documents} is for .txt files, a sentence a line and a blank "
                f"line after each document; this is a .{format} file",
                file=path,
            )
        rows = read_documents(
            path, request.gate, documents, max_line_bytes=max_line_bytes, on_bytes=on_bytes
        )
        return "documents", rows
    if format == "csv" or format == "tsv":
        return from_table(request, "comma" if format == "csv" else "tab")
    if are_positions(wanted):
        raise DataError(
            f"positions --columns {','.join(wanted or ())} are for .csv and .tsv files; this is a "
            f".{format} file",
            file=path,
        )
    if format == "jsonl" or format == "json":
        return from_json(request, format)
    if format == "parquet":
        return from_parquet(request)
    if wanted is not None:
        raise DataError(
            f"a .txt file has no columns; leave out --columns {','.join(wanted)}, or rename the "
            "file to .tsv or .csv",
            file=path,
        )
    if label is not None:
        raise DataError(f"a .txt file has no column {label!r}; leave out data.label", file=path)
    return "texts", (tuple(fields) for _, fields in request.rows())
