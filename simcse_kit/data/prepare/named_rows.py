"""Rows with all their named values, from files of any format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from simcse_kit.data.bad_rows import OnBadRow, Problem, ReadReport, RowGate, shorten
from simcse_kit.data.columns import are_positions, check_names, choose_columns
from simcse_kit.data.delimited import read_rows
from simcse_kit.data.files import Format, check_file, format_of
from simcse_kit.data.json_rows import json_records
from simcse_kit.data.lines import OnBytes
from simcse_kit.errors import ConfigError, DataError
from simcse_kit.registry import closest
from simcse_kit.utils.progress import progress_bar

__all__ = ["Record", "Records", "headed", "reading"]

Record = dict[str, Any]


class Records:
    """The rows of one file as dicts; iterate for ``(line, record)``.

    Args:
        path: a file with one of the suffixes that training reads.
        header: whether a .csv or .tsv file begins with names; else columns are called 0, 1, ...
        format: what the file is, whatever its suffix says.
        on_bad_row: raise at the first bad row, or skip and count it in ``report``.
        report: counts skipped rows; its ``rows`` is left to the caller.
        on_bytes: told of the bytes read.

    Attributes:
        columns: the names, of a .jsonl file those of its first row.

    Raises:
        DataError: the file cannot be read, is empty, or a name in its header occurs twice.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        header: bool = True,
        format: str | None = None,
        on_bad_row: OnBadRow = "error",
        report: ReadReport | None = None,
        on_bytes: OnBytes | None = None,
    ):
        if format is not None and format not in get_args(Format):
            raise ConfigError(
                f"format is {format!r}{closest(format, list(get_args(Format)))}; allowed: "
                f"{', '.join(get_args(Format))}"
            )
        check_file(path)
        self.path = Path(path)
        self.format: Format = format_of(path) if format is None else format  # type: ignore[assignment]
        self.header = header or self.format not in ("csv", "tsv")
        self.gate = RowGate(path, on_bad_row, report)
        self._on_bytes = on_bytes
        self.columns, self._rows = self._open(on_bad_row)

    def __iter__(self) -> Iterator[tuple[int, Record]]:
        return self._rows

    def column(self, wanted: str | None, known: Sequence[str], *, what: str, flag: str) -> str:
        """The column that is ``wanted``, or else the first of the ``known`` that is there.

        Raises:
            DataError: there is none.
        """
        shown = shorten(",".join(self.columns), 300)
        if wanted is not None:
            if wanted not in self.columns:
                near = closest(wanted, list(self.columns))
                raise DataError(
                    f"no column {wanted!r}{near}; the columns are {shown}", file=self.path
                )
            return wanted
        by_name = {name.lower(): name for name in reversed(self.columns)}
        for name in known:
            if name in by_name:
                return by_name[name]
        raise DataError(
            f"the columns {shown} have none for the {what} ({', '.join(known)}); name it with "
            f"{flag}",
            file=self.path,
        )

    def text_columns(self, wanted: Sequence[str] | None) -> tuple[str, ...]:
        """The columns with the texts: those ``wanted``, or those that training would read.

        Raises:
            DataError: one is missing, or the header is not recognised.
        """
        if self.format == "txt":
            if wanted:
                raise DataError("a .txt file has no columns; leave out --columns", file=self.path)
            return self.columns
        return choose_columns(
            self.columns,
            wanted or None,
            file=self.path,
            line=None if self.format == "parquet" else 1,
            lists=self.format in ("jsonl", "json", "parquet"),
        )

    def texts(self, record: Record, columns: Sequence[str]) -> tuple[str, ...] | Problem:
        """The texts in ``columns``, stripped; a list is taken apart, and null is left out."""
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

    def good(self, columns: Sequence[str]) -> Iterator[tuple[Record, tuple[str, ...]]]:
        """The rows with their :meth:`texts`; rows without are rejected."""
        for line, record in self:
            texts = self.texts(record, columns)
            if isinstance(texts, Problem):
                self.gate.reject(line, texts)
            else:
                yield record, texts

    def _open(self, on_bad_row: OnBadRow) -> tuple[tuple[str, ...], Iterator[tuple[int, Record]]]:
        if self.format == "parquet":
            return self._parquet()
        if self.format == "jsonl" or self.format == "json":
            records = json_records(self.path, self.format, self.gate, on_bytes=self._on_bytes)
            line, first = next(records, (0, None))
            if first is None:
                raise DataError("every row is bad; fix the file", file=self.path)
            return tuple(first), _chain((line, first), records)
        rows = read_rows(
            self.path,
            on_bad_row=on_bad_row,
            report=self.gate.report,
            format=self.format,
            on_bytes=self._on_bytes,
        )
        if self.format == "txt":
            return ("text",), ((line, {"text": fields[0]}) for line, fields in rows)
        found = next(rows, None)
        if found is None:
            raise DataError("every row is bad; fix the file", file=self.path)
        line, fields = found
        if not self.header:
            names = tuple(map(str, range(len(fields))))
            return names, self._table(names, _chain(found, rows))
        check_names(fields, file=self.path, line=line, blank=True)
        return tuple(fields), self._table(tuple(fields), rows)

    def _table(
        self, names: tuple[str, ...], rows: Iterable[tuple[int, list[str]]]
    ) -> Iterator[tuple[int, Record]]:
        width = len(names)
        remedy = "quote a field that holds a comma" if self.format == "csv" else "check the tabs"
        for line, fields in rows:
            if len(fields) == width:
                yield line, dict(zip(names, fields, strict=True))
            else:
                message = f"ragged row: expected {width} fields, found {len(fields)}; {remedy}"
                self.gate.reject(line, Problem("wrong number of fields", message))

    def _parquet(self) -> tuple[tuple[str, ...], Iterator[tuple[int, Record]]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        def damaged(error: Exception) -> DataError:
            cause = " ".join(str(error).split())[:200]
            return DataError(f"not a readable parquet file: {cause}", file=self.path)

        size = self.path.stat().st_size
        try:
            with pq.ParquetFile(self.path, memory_map=True) as opened:
                names, total = tuple(opened.schema_arrow.names), opened.metadata.num_rows
        except (pa.ArrowException, OSError) as error:
            raise damaged(error) from None
        if total == 0:
            raise DataError("the file is empty: it has no row", file=self.path)

        def rows() -> Iterator[tuple[int, Record]]:
            number = 0
            try:
                with pq.ParquetFile(self.path, memory_map=True) as opened:
                    for batch in opened.iter_batches(batch_size=4096):
                        for record in batch.to_pylist():
                            number += 1
                            yield number, record
                        if self._on_bytes is not None:
                            self._on_bytes(size * batch.num_rows // total)
            except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
                raise damaged(error) from None

        return names, rows()


@contextmanager
def reading(paths: Iterable[str | Path]) -> Iterator[OnBytes]:
    """A bar over the bytes read, on a terminal or in a notebook, after two seconds."""
    total = sum(Path(path).stat().st_size for path in paths if Path(path).is_file())
    with progress_bar(total, desc="reading", unit="B", unit_scale=True, delay=2) as bar:
        yield bar.update


def headed(columns: Sequence[str] | None) -> bool:
    """Whether a file whose columns are named so has a header line; positions say that not."""
    return not are_positions(columns)


def _chain(first: tuple[int, Any], rest: Iterable[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
    yield first
    yield from rest
