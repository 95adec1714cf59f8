"""Rows with named values, to files that appear whole."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from simcse_kit.data.files import COMPRESSED, Format, format_of
from simcse_kit.data.prepare.named_rows import Record
from simcse_kit.errors import ConfigError, DataError
from simcse_kit.utils.files import replacement
from simcse_kit.utils.output_paths import check_file_place

__all__ = ["Writer", "check_output", "writing"]

_WRITTEN: tuple[Format, ...] = ("txt", "csv", "tsv", "jsonl")


def check_output(path: str | Path, *, overwrite: bool, columns: int | None = None) -> Path:
    """``path`` as a Path, once it is known to be a file that can be written.

    Args:
        path: .txt, .csv, .tsv or .jsonl, maybe gzipped.
        overwrite: an existing file may be replaced.
        columns: how many a row will have; .txt takes one.

    Raises:
        ConfigError: the suffix is not written, nothing can be written there, or the file is there.
    """
    path = Path(path)
    format: Format | None
    try:
        format = format_of(path)
    except DataError:
        format = None
    if format not in _WRITTEN or path.suffix.lower() in COMPRESSED[1:]:
        raise ConfigError(
            f"--output {path}: rows are written as {', '.join('.' + f for f in _WRITTEN)}, each "
            "also with .gz; give the file one of these suffixes"
        )
    if format == "txt" and columns not in (None, 1):
        raise ConfigError(
            f"--output {path}: a .txt file holds one text a line; take .csv, .tsv or .jsonl"
        )
    check_file_place(path, "--output")
    if path.exists() and not overwrite:
        raise ConfigError(f"--output {path} is there already; give another name, or --overwrite")
    return path


class Writer:
    """Writes records to an open file; made by :func:`writing`."""

    def __init__(
        self, file: IO[str], path: Path, format: Format, columns: Sequence[str], header: bool
    ):
        self._file = file
        self._path = path
        self._format = format
        self._columns = tuple(columns)
        self._known = frozenset(columns)
        self.rows = 0
        self._plain = csv.writer(file, lineterminator="\n")
        # A bare carriage return is not quoted by itself.
        self._quoted = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
        if header and format in ("csv", "tsv"):
            self._row(self._columns)

    def write(self, record: Record) -> None:
        """Append one row.

        Raises:
            DataError: it has a value that the format cannot hold.
        """
        self.rows += 1
        if self._format == "jsonl":
            self._file.write(json.dumps(record, ensure_ascii=False, default=str) + "\n")
            return
        if not self._known.issuperset(record):
            more = next(name for name in record if name not in self._known)
            raise DataError(
                f"row {self.rows} has {more!r}, which the first row has not and so is no column of "
                f"this .{self._format} file; write .jsonl",
                file=self._path,
            )
        self._row([self._field(name, record.get(name)) for name in self._columns])

    def _field(self, name: str, value: Any) -> str:
        if isinstance(value, str):
            return value
        if isinstance(value, (dict, list)):
            raise DataError(
                f"row {self.rows} has several values in {name!r}, which a .{self._format} file "
                "cannot hold; write .jsonl",
                file=self._path,
            )
        return "" if value is None else str(value)

    def _row(self, fields: Sequence[str]) -> None:
        if self._format == "csv":
            bare = any("\r" in field for field in fields)
            (self._quoted if bare else self._plain).writerow(fields)
            return
        # Tabs and line ends are these formats' own marks.
        self._file.write("\t".join(map(_one_line, fields)) + "\n")


@contextmanager
def writing(path: Path, columns: Sequence[str], *, header: bool = True) -> Iterator[Writer]:
    """A writer of the file ``path``, which appears whole at the end or not at all.

    In .txt and .tsv files a tab or line end inside a text becomes a space.

    Args:
        path: see :func:`check_output`.
        columns: of .csv and .tsv files; .jsonl keeps all that a record has.
        header: whether .csv and .tsv files begin with the names.

    Raises:
        ConfigError: it cannot be written.
    """
    with replacement(path) as temporary, temporary.open("wb") as raw:
        # No name and no time in it: equal rows give equal files.
        binary: Any = (
            gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if path.suffix.lower() == ".gz" else raw
        )
        with io.TextIOWrapper(binary, encoding="utf-8", newline="") as file:
            yield Writer(file, path, format_of(path), columns, header)
            file.flush()


def _one_line(text: str) -> str:
    return " ".join(text.split()) if "\t" in text or "\n" in text or "\r" in text else text
