"""Output of data tools: files of records that appear whole, and a summary of counts."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from simcse_kit.data.bad_rows import ReadReport
from simcse_kit.data.files import COMPRESSED, FileFormat, format_of, suffix_of
from simcse_kit.data.records import Record
from simcse_kit.errors import ConfigError, DataError
from simcse_kit.utils.files import replacement
from simcse_kit.utils.output_paths import check_file_place

__all__ = ["Summary", "Writer", "check_output", "writing"]

_WRITTEN: tuple[FileFormat, ...] = ("txt", "csv", "tsv", "jsonl")


@dataclass
class Summary:
    """Counts and figures of a data tool, as text and as JSON.

    Args:
        output: The file or folder that was written.
        rows: Number of rows written.
        read: Number of good rows read.
        left_out: Number of rows that were not written, by reason.
        bad_rows: Number of skipped rows of the input, by reason.
        figures: Other counts and measurements.
    """

    output: str
    rows: int = 0
    read: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    bad_rows: dict[str, int] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)

    def leave_out(self, what: str, count: int = 1) -> None:
        """Count rows that are not written."""
        self.left_out[what] = self.left_out.get(what, 0) + count

    def take(self, report: ReadReport) -> None:
        """Add the skipped rows of a report."""
        for reason, count in report.skipped.items():
            self.bad_rows[reason] = self.bad_rows.get(reason, 0) + count

    def to_json(self) -> dict[str, Any]:
        """Return the summary as values for ``json.dumps``."""
        return asdict(self)

    def text(self) -> str:
        """Return the summary as a few lines of text."""
        lines = [f"{self.rows:,} rows of {self.read:,}: {self.output}"]
        for title, counts in (("left out", self.left_out), ("bad rows", self.bad_rows)):
            if counts:
                each = (f"{count:,} {what}" for what, count in counts.items())
                lines.append(f"{title}: {', '.join(each)}")
        for name, value in self.figures.items():
            form = ".4f" if isinstance(value, float) else "," if isinstance(value, int) else ""
            lines.append(f"{name}: {value:{form}}")
        return "\n".join(lines)


def check_output(path: str | Path, *, overwrite: bool, columns: int | None = None) -> Path:
    """Check that ``path`` can be written, and give it as a Path.

    Args:
        path: A .txt, .csv, .tsv or .jsonl file, or one of these with .gz.
        overwrite: Whether an existing file may be replaced.
        columns: Number of columns in a row; a .txt file takes one.

    Raises:
        ConfigError: The suffix is not supported, the place cannot be written, or the file exists.
    """
    path = Path(path)
    format = format_of(path) if suffix_of(path) else None
    if format not in _WRITTEN or path.suffix.lower() in COMPRESSED[1:]:
        raise ConfigError(
            f"--output {path}: rows are written as {', '.join('.' + f for f in _WRITTEN)}, each "
            "also with .gz; give the file one of these suffixes"
        )
    if format == "txt" and columns not in (None, 1):
        raise ConfigError(
            f"--output {path}: a .txt file holds one text a line; choose .csv, .tsv or .jsonl"
        )
    check_file_place(path, "--output")
    if path.exists() and not overwrite:
        raise ConfigError(f"--output {path} already exists; give another name, or --overwrite")
    return path


class Writer:
    """Writer of records to an open file, made by :func:`writing`."""

    def __init__(
        self, file: IO[str], path: Path, format: FileFormat, columns: Sequence[str], header: bool
    ):
        self._file = file
        self._path = path
        self._format = format
        self._columns = tuple(columns)
        self._known = frozenset(columns)
        self.rows = 0
        self._plain = csv.writer(file, lineterminator="\n")
        # The csv module leaves a bare carriage return unquoted.
        self._quoted = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
        if header and format in ("csv", "tsv"):
            self._row(self._columns)

    def write(self, record: Record) -> None:
        """Append a row.

        Raises:
            DataError: The row has a value that the format cannot hold.
        """
        self.rows += 1
        if self._format == "jsonl":
            self._file.write(json.dumps(record, ensure_ascii=False, default=str) + "\n")
            return
        if not self._known.issuperset(record):
            more = next(name for name in record if name not in self._known)
            raise DataError(
                f"row {self.rows} has {more!r}, which the first row lacks and which is therefore "
                f"not a column of this .{self._format} file; write .jsonl",
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
        # Tabs and line ends separate fields and rows.
        self._file.write("\t".join(map(_one_line, fields)) + "\n")


@contextmanager
def writing(path: Path, columns: Sequence[str], *, header: bool = True) -> Iterator[Writer]:
    """Open a writer of a file that appears complete at the end, or not at all.

    In .txt and .tsv files a tab or line end inside a text becomes a space.

    Args:
        path: The file, as checked by :func:`check_output`.
        columns: Columns of .csv and .tsv files; .jsonl keeps all keys of a record.
        header: Whether .csv and .tsv files begin with the names of the columns.

    Raises:
        ConfigError: The file cannot be written.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "out.csv")
        ...     with writing(path, ["sent0", "sent1"]) as writer:
        ...         writer.write({"sent0": "A cat sat.", "sent1": "A cat, sitting."})
        ...     path.read_text()
        'sent0,sent1\\nA cat sat.,"A cat, sitting."\\n'
    """
    with replacement(path) as temporary, temporary.open("wb") as raw:
        # Without name and time, so that equal rows give equal files.
        binary: Any = (
            gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if path.suffix.lower() == ".gz" else raw
        )
        with io.TextIOWrapper(binary, encoding="utf-8", newline="") as file:
            yield Writer(file, path, format_of(path), columns, header)
            file.flush()


def _one_line(text: str) -> str:
    return " ".join(text.split()) if "\t" in text or "\n" in text or "\r" in text else text
