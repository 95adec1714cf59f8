"""File formats of vectors: .npy, .safetensors, .parquet and .jsonl.

Files are written, joined and compared piece by piece, in bounded memory.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.lib.format import write_array_header_1_0
from numpy.typing import NDArray

__all__ = ["FORMATS", "VectorFormat"]

Row: TypeAlias = np.dtype[Any]
"""Type of one vector: that of its numbers and its shape ``(width,)``."""

Write = Callable[[Sequence[str], NDArray[Any]], object]
"""Function that appends rows: their sentences, and their vectors ``(rows, width)``."""

Writer = Callable[[Path, int, Row], AbstractContextManager[Write]]

_PIECE = 1 << 22
_KEY = "embeddings"


@dataclass(frozen=True)
class VectorFormat:
    """A file format.

    Attributes:
        suffix: Suffix of the files.
        size: Approximate size of a file, as a multiple of the size of its vectors in memory.
        has_text: Whether the files contain the sentences.
        writer: ``writer(path, rows, row)`` opens a file of ``rows`` rows and returns the function
            that appends rows, as a context manager.
        join: ``join(parts, path, rows, row)`` writes the rows of all parts, in order.
        holds: ``holds(path, parts, rows, row)`` reads a file and compares it with what ``join``
            wrote.
        count: Function that reads the number of rows of a file.
    """

    suffix: str
    size: float
    has_text: bool
    writer: Writer
    join: Callable[[Sequence[Path], Path, int, Row], None]
    holds: Callable[[Path, Sequence[Path], int, Row], bool]
    count: Callable[[Path], int]


def _of_bytes(
    suffix: str,
    count: Callable[[Path], int],
    header: Callable[[int, Row], bytes],
    text_writer: Writer | None = None,
) -> VectorFormat:
    """Make a format of a header and the rows one after the other, as raw numbers or as text."""

    @contextmanager
    def binary_writer(path: Path, rows: int, row: Row) -> Iterator[Write]:
        with path.open("wb") as file:
            file.write(header(rows, row))
            yield lambda _, vectors: file.write(vectors.astype(row.base, copy=False).tobytes())

    def pieces(parts: Sequence[Path], rows: int, row: Row) -> Iterator[bytes]:
        yield header(rows, row)
        for part in parts:
            yield from _pieces_of(part, len(header(count(part), row)))

    def join(parts: Sequence[Path], path: Path, rows: int, row: Row) -> None:
        with path.open("wb") as file:
            file.writelines(pieces(parts, rows, row))

    def holds(path: Path, parts: Sequence[Path], rows: int, row: Row) -> bool:
        with path.open("rb") as file:
            same = all(file.read(len(piece)) == piece for piece in pieces(parts, rows, row))
            return same and not file.read(1)

    size = 1 if text_writer is None else 3
    writer = text_writer or binary_writer
    return VectorFormat(suffix, size, text_writer is not None, writer, join, holds, count)


def _pieces_of(path: Path, start: int = 0) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        yield from iter(lambda: file.read(_PIECE), b"")


# ---- .npy


def _npy_header(rows: int, row: Row) -> bytes:
    buffer = io.BytesIO()
    shape = {"descr": row.base.str, "fortran_order": False, "shape": (rows, *row.shape)}
    write_array_header_1_0(buffer, shape)
    return buffer.getvalue()


def _npy_rows(path: Path) -> int:
    return int(np.load(path, mmap_mode="r").shape[0])


# ---- .safetensors


def _safetensors_header(rows: int, row: Row) -> bytes:
    kind = f"{row.base.kind.upper()}{8 * row.base.itemsize}"
    shape, end = [rows, *row.shape], rows * row.itemsize
    entry = {"dtype": kind, "shape": shape, "data_offsets": [0, end]}
    text = json.dumps({_KEY: entry}, separators=(",", ":")).encode()
    # The format requires the numbers to begin at a multiple of 8 bytes, and allows spaces for that.
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _safetensors_rows(path: Path) -> int:
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        return int(file.get_slice(_KEY).get_shape()[0])


# ---- .jsonl: one object per line


def _json_numbers(vectors: NDArray[Any]) -> list[str]:
    """Format rows as JSON lists of the shortest decimals that read back to the same numbers."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if vectors.dtype == np.float16:  # which pyarrow does not write as text
        vectors = vectors.astype(np.float32)
    flat = pc.cast(pa.array(vectors.reshape(-1)), pa.string())
    rows = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]).cast(pa.list_(pa.string()))
    return [f"[{text}]" for text in pc.binary_join(rows, ", ").to_pylist()]


@contextmanager
def _jsonl_writer(path: Path, rows: int, row: Row) -> Iterator[Write]:  # noqa: ARG001
    def write(texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
        for text, numbers in zip(texts, _json_numbers(vectors), strict=True):
            quoted = json.dumps(text, ensure_ascii=False)
            file.write(f'{{"text": {quoted}, "embedding": {numbers}}}\n')

    with path.open("w", encoding="utf-8", newline="\n") as file:
        yield write


def _jsonl_rows(path: Path) -> int:
    return sum(piece.count(b"\n") for piece in _pieces_of(path))


# ---- .parquet: columns text and embedding


def _schema(row: Row) -> Any:
    import pyarrow as pa

    numbers = pa.list_(pa.from_numpy_dtype(row.base), *row.shape)
    return pa.schema([("text", pa.string()), ("embedding", numbers)])


@contextmanager
def _parquet_writer(path: Path, rows: int, row: Row) -> Iterator[Write]:  # noqa: ARG001
    import pyarrow as pa
    import pyarrow.parquet as pq

    def write(texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
        numbers = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), *row.shape)
        columns = [pa.array(texts, pa.string()), numbers]
        file.write_table(pa.table(columns, schema=_schema(row)))

    with pq.ParquetWriter(path, _schema(row)) as file:
        yield write


def _row_groups(paths: Sequence[Path]) -> Iterator[Any]:
    import pyarrow.parquet as pq

    for path in paths:
        with pq.ParquetFile(path) as source:
            for group in range(source.num_row_groups):
                yield source.read_row_group(group)


def _parquet_join(parts: Sequence[Path], path: Path, rows: int, row: Row) -> None:  # noqa: ARG001
    import pyarrow.parquet as pq

    with pq.ParquetWriter(path, _schema(row)) as file:
        for group in _row_groups(parts):
            file.write_table(group)


def _parquet_holds(path: Path, parts: Sequence[Path], rows: int, row: Row) -> bool:  # noqa: ARG001
    both = zip_longest(_row_groups([path]), _row_groups(parts))
    return all(ours is not None and ours.equals(theirs) for ours, theirs in both)


def _parquet_rows(path: Path) -> int:
    import pyarrow.parquet as pq

    return int(pq.read_metadata(path).num_rows)


FORMATS: dict[str, VectorFormat] = {
    "npy": _of_bytes(".npy", _npy_rows, _npy_header),
    "safetensors": _of_bytes(".safetensors", _safetensors_rows, _safetensors_header),
    "parquet": VectorFormat(
        ".parquet", 1, True, _parquet_writer, _parquet_join, _parquet_holds, _parquet_rows
    ),
    "jsonl": _of_bytes(".jsonl", _jsonl_rows, lambda *_: b"", _jsonl_writer),
}
"""Formats by name, which is the suffix without its dot."""
