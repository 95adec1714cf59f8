"""Training rows in Arrow IPC stream files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from simcse_kit.data.readers import Kind

__all__ = ["RowWriter", "count_rows", "schema_of"]

_BATCH_ROWS = 10_000
# Long texts make smaller batches, to bound memory and to fit 32-bit string offsets.
_BATCH_CHARACTERS = 32_000_000


def schema_of(kind: Kind) -> Any:
    """Return the pyarrow schema of rows of a kind.

    The columns are sent0; sent1 for rows with two texts; and negatives (a list) for triplets, next
    (a list) for documents, or label (a number) for labelled rows.
    """
    import pyarrow as pa

    fields = [pa.field("sent0", pa.string())]
    if kind not in ("texts", "documents"):
        fields.append(pa.field("sent1", pa.string()))
    if kind == "triplets":
        fields.append(pa.field("negatives", pa.list_(pa.string())))
    if kind == "documents":
        fields.append(pa.field("next", pa.list_(pa.string())))
    if kind == "labelled":
        fields.append(pa.field("label", pa.float64()))
    return pa.schema(fields)


class RowWriter:
    """Writer of rows to an Arrow stream, which holds one record batch in memory.

    Args:
        path: The file to write.
        kind: What the rows hold.

    Attributes:
        rows: Number of rows written.
        negatives: Largest number of texts in the list column of a row.
    """

    def __init__(self, path: Path, kind: Kind):
        import pyarrow as pa

        self._schema = schema_of(kind)
        self._file = pa.OSFile(str(path), "wb")
        self._stream = pa.ipc.new_stream(self._file, self._schema)
        self.rows = 0
        self.negatives = 0

    def write(self, rows: Iterable[tuple[str, ...]]) -> None:
        """Append rows of texts (anchor, positive, hard negatives), or as the kind requires."""
        batch: list[tuple[str, ...]] = []
        characters = 0
        for row in rows:
            batch.append(row)
            characters += len(row[0]) if len(row) == 1 else sum(map(len, row))
            if len(batch) >= _BATCH_ROWS or characters >= _BATCH_CHARACTERS:
                self._flush(batch)
                batch, characters = [], 0
        self._flush(batch)

    def close(self) -> None:
        """End the stream and close the file."""
        try:
            self._stream.close()
        finally:
            self._file.close()

    def _flush(self, batch: list[tuple[str, ...]]) -> None:
        import pyarrow as pa

        if not batch:
            return
        columns = []
        for place, field in enumerate(self._schema):
            if pa.types.is_list(field.type):
                lists = [row[place:] for row in batch]
                self.negatives = max(self.negatives, max(map(len, lists)))
                columns.append(pa.array(lists, field.type))
            elif pa.types.is_floating(field.type):
                columns.append(pa.array([float(row[place]) for row in batch], field.type))
            else:
                columns.append(pa.array([row[place] for row in batch], field.type))
        self._stream.write_batch(pa.record_batch(columns, schema=self._schema))
        self.rows += len(batch)


def count_rows(path: Path, kind: Kind) -> int | None:
    """Count the rows of an Arrow stream, and check all offsets and characters.

    A wrong offset would make reading a row fail or return other memory.

    Returns:
        The number of rows, or None if the file is missing, truncated, invalid or of another kind.
    """
    import pyarrow as pa

    rows = 0
    try:
        with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as stream:
            if stream.schema != schema_of(kind):
                return None
            for batch in stream:
                batch.validate(full=True)
                rows += batch.num_rows
            return rows
    except (pa.ArrowException, OSError):
        return None
