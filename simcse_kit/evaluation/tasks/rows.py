"""Rows of a text file by column name: .tsv and .csv with a header line, and .jsonl."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from simcse_kit.data.files import check_file
from simcse_kit.data.readers import read_rows
from simcse_kit.errors import DataError
from simcse_kit.evaluation.tasks.sts_files import read_lines

__all__ = ["json_lines", "named_rows"]


def named_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Give (line, column -> text with white space collapsed); ``columns`` are filled in every row.

    Raises:
        DataError: unreadable file, a missing column or field, or a blank one of ``columns``.
    """
    path = check_file(path)
    rows = json_lines(path) if path.suffix == ".jsonl" else _table(path, columns)
    for line, row in rows:
        texts = {str(key): " ".join(str(value).split()) for key, value in row.items()}
        for column in columns:
            if not texts.get(column):
                raise DataError(
                    f"column {column!r} is missing or blank; every row needs {', '.join(columns)}",
                    file=path,
                    line=line,
                )
        yield line, texts


def _table(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    rows = iter(read_rows(path))
    _, header = next(rows, (1, []))
    names = [name.strip() for name in header]
    if not set(columns) <= set(names):
        raise DataError(
            f"the first line names the columns {names}; it must name {', '.join(columns)}",
            file=path,
            line=1,
        )
    for line, fields in rows:
        if len(fields) != len(names):
            raise DataError(
                f"{len(fields)} fields; the first line names {len(names)}", file=path, line=line
            )
        yield line, dict(zip(names, fields, strict=True))


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Give (line, object) for every line of a .jsonl file that is not blank.

    Raises:
        DataError: unreadable file, or a line that is no JSON object.
    """
    for line, text in enumerate(read_lines(path), start=1):
        if text.strip():
            try:
                row = json.loads(text)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise DataError("is not a JSON object", file=path, line=line)
            yield line, row
