"""Ids, texts and metadata of the documents of a segment, in Arrow IPC files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from simcse_kit.errors import DataError
from simcse_kit.search.documents import Identified
from simcse_kit.utils.files import replacement

__all__ = ["TEXTS", "Texts", "write_texts"]

TEXTS = "texts.arrow"
"""File of a segment with ids, texts and metadata."""

_COLUMNS = ("id", "text", "metadata")
_BATCH_ROWS = 10_000
# Long texts make smaller batches, to bound memory and to fit 32-bit string offsets.
_BATCH_CHARACTERS = 32_000_000


def write_texts(path: Path, documents: Iterable[Identified], *, remedy: str) -> int:
    """Write documents to a file, and return their number.

    Raises:
        ConfigError: The file cannot be written.
    """
    import pyarrow as pa

    schema = _schema()
    rows = 0
    with (
        replacement(path, remedy=remedy) as temporary,
        temporary.open("wb") as file,
        pa.ipc.new_file(file, schema) as target,
    ):
        for batch in _batches(documents):
            columns = [pa.array([getattr(d, n) for d in batch], pa.string()) for n in _COLUMNS]
            target.write_batch(pa.record_batch(columns, schema=schema))
            rows += len(batch)
    return rows


def _batches(documents: Iterable[Identified]) -> Iterator[list[Identified]]:
    batch: list[Identified] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text) + len(document.metadata)
        if len(batch) >= _BATCH_ROWS or characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _schema() -> Any:
    import pyarrow as pa

    return pa.schema([pa.field(name, pa.string(), nullable=False) for name in _COLUMNS])


class Texts:
    """The documents of several files, memory-mapped.

    Args:
        paths: Files of :func:`write_texts`.

    Raises:
        DataError: A file is damaged or holds something else.
        FileNotFoundError: A file does not exist.
    """

    def __init__(self, paths: Iterable[Path]):
        import pyarrow as pa

        tables = []
        for path in paths:
            try:
                table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
                table.validate()
                intact = table.schema == _schema()
            except FileNotFoundError:
                raise
            except (pa.ArrowException, OSError):
                intact = False
            if not intact:
                raise DataError(
                    "not a readable file of texts; build the index again with --overwrite",
                    file=path,
                )
            tables.append(table)
        self._table = pa.concat_tables(tables) if tables else _schema().empty_table()

    def __len__(self) -> int:
        """Number of documents."""
        return int(self._table.num_rows)

    def get(self, row: int) -> tuple[str, str, dict[str, Any]]:
        """Return id, text and metadata of a row."""
        name, text, metadata = (self._table.column(n)[row].as_py() for n in _COLUMNS)
        return name, text, json.loads(metadata)

    def documents(self) -> Iterator[Identified]:
        """Yield all documents in the order of the rows."""
        for batch in self._table.to_batches(max_chunksize=_BATCH_ROWS):
            columns = (batch.column(name).to_pylist() for name in _COLUMNS)
            for values in zip(*columns, strict=True):
                yield Identified(*values)

    def ids(self) -> list[str]:
        """Return the ids of all rows."""
        found: list[str] = self._table.column("id").to_pylist()
        return found

    def check(self) -> None:
        """Check all offsets and characters.

        Raises:
            DataError: The content is damaged.
        """
        import pyarrow as pa

        try:
            self._table.validate(full=True)
        except pa.ArrowException as error:
            raise DataError(
                f"the texts of the index are damaged ({error}); build the index again with "
                "--overwrite"
            ) from None
