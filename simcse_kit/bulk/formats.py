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
from typing import Any

import numpy as np
from numpy.lib.format import write_array_header_1_0
from numpy.typing import NDArray

__all__ = ["FORMATS", "VectorFormat"]

Write = Callable[[Sequence[str], NDArray[np.float32]], object]
"""Function that appends rows: their sentences, and ``(rows, dim)`` float32."""

Writer = Callable[[Path, int, int], AbstractContextManager[Write]]

_PIECE = 1 << 22
_KEY = "embeddings"


@dataclass(frozen=True)
class VectorFormat:
    """A file format.

    Attributes:
        suffix: Suffix of the files.
        bytes_per_number: Approximate size of a coordinate.
        has_text: Whether the files contain the sentences.
        writer: ``writer(path, rows, dim)`` opens a file of ``rows`` rows and returns the function
            that appends rows, as a context manager.
        join: ``join(parts, path, rows, dim)`` writes the rows of all parts, in order.
        holds: ``holds(path, parts, rows, dim)`` reads a file and compares it with what ``join``
            wrote.
        count: Function that reads the number of rows of a file.
    """

    suffix: str
    bytes_per_number: float
    has_text: bool
    writer: Writer
    join: Callable[[Sequence[Path], Path, int, int], None]
    holds: Callable[[Path, Sequence[Path], int, int], bool]
    count: Callable[[Path], int]


def _of_bytes(
    suffix: str,
    count: Callable[[Path], int],
    header: Callable[[int, int], bytes],
    text_writer: Writer | None = None,
) -> VectorFormat:
    """Make a format of a header and the rows one after the other, as raw float32 or as text."""

    @contextmanager
    def binary_writer(path: Path, rows: int, dim: int) -> Iterator[Write]:
        with path.open("wb") as file:
            file.write(header(rows, dim))
            yield lambda _, vectors: file.write(vectors.astype("<f4", copy=False).tobytes())

    def pieces(parts: Sequence[Path], rows: int, dim: int) -> Iterator[bytes]:
        yield header(rows, dim)
        for part in parts:
            yield from _pieces_of(part, len(header(count(part), dim)))

    def join(parts: Sequence[Path], path: Path, rows: int, dim: int) -> None:
        with path.open("wb") as file:
            file.writelines(pieces(parts, rows, dim))

    def holds(path: Path, parts: Sequence[Path], rows: int, dim: int) -> bool:
        with path.open("rb") as file:
            same = all(file.read(len(piece)) == piece for piece in pieces(parts, rows, dim))
            return same and not file.read(1)

    size = 4 if text_writer is None else 12
    writer = text_writer or binary_writer
    return VectorFormat(suffix, size, text_writer is not None, writer, join, holds, count)


def _pieces_of(path: Path, start: int = 0) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        yield from iter(lambda: file.read(_PIECE), b"")


# ---- .npy


def _npy_header(rows: int, dim: int) -> bytes:
    buffer = io.BytesIO()
    shape = {"descr": "<f4", "fortran_order": False, "shape": (rows, dim)}
    write_array_header_1_0(buffer, shape)
    return buffer.getvalue()


def _npy_rows(path: Path) -> int:
    return int(np.load(path, mmap_mode="r").shape[0])


# ---- .safetensors


def _safetensors_header(rows: int, dim: int) -> bytes:
    entry = {"dtype": "F32", "shape": [rows, dim], "data_offsets": [0, 4 * rows * dim]}
    text = json.dumps({_KEY: entry}, separators=(",", ":")).encode()
    # The format requires the numbers to begin at a multiple of 8 bytes, and allows spaces for that.
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _safetensors_rows(path: Path) -> int:
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        return int(file.get_slice(_KEY).get_shape()[0])


# ---- .jsonl: one object per line


def _json_numbers(vectors: NDArray[np.float32]) -> list[str]:
    """Format rows as JSON lists of the shortest decimals that read back to the same float32."""
    import pyarrow as pa
    import pyarrow.compute as pc

    flat = pc.cast(pa.array(vectors.reshape(-1)), pa.string())
    rows = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]).cast(pa.list_(pa.string()))
    return [f"[{text}]" for text in pc.binary_join(rows, ", ").to_pylist()]


@contextmanager
def _jsonl_writer(path: Path, rows: int, dim: int) -> Iterator[Write]:  # noqa: ARG001
    def write(texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
        for text, numbers in zip(texts, _json_numbers(vectors), strict=True):
            quoted = json.dumps(text, ensure_ascii=False)
            file.write(f'{{"text": {quoted}, "embedding": {numbers}}}\n')

    with path.open("w", encoding="utf-8", newline="\n") as file:
        yield write


def _jsonl_rows(path: Path) -> int:
    return sum(piece.count(b"\n") for piece in _pieces_of(path))


# ---- .parquet: columns text and embedding


def _schema(dim: int) -> Any:
    import pyarrow as pa

    return pa.schema([("text", pa.string()), ("embedding", pa.list_(pa.float32(), dim))])


@contextmanager
def _parquet_writer(path: Path, rows: int, dim: int) -> Iterator[Write]:  # noqa: ARG001
    import pyarrow as pa
    import pyarrow.parquet as pq

    def write(texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
        numbers = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dim)
        columns = [pa.array(texts, pa.string()), numbers]
        file.write_table(pa.table(columns, schema=_schema(dim)))

    with pq.ParquetWriter(path, _schema(dim)) as file:
        yield write


def _row_groups(paths: Sequence[Path]) -> Iterator[Any]:
    import pyarrow.parquet as pq

    for path in paths:
        with pq.ParquetFile(path) as source:
            for group in range(source.num_row_groups):
                yield source.read_row_group(group)


def _parquet_join(parts: Sequence[Path], path: Path, rows: int, dim: int) -> None:  # noqa: ARG001
    import pyarrow.parquet as pq

    with pq.ParquetWriter(path, _schema(dim)) as file:
        for group in _row_groups(parts):
            file.write_table(group)


def _parquet_holds(path: Path, parts: Sequence[Path], rows: int, dim: int) -> bool:  # noqa: ARG001
    both = zip_longest(_row_groups([path]), _row_groups(parts))
    return all(ours is not None and ours.equals(theirs) for ours, theirs in both)


def _parquet_rows(path: Path) -> int:
    import pyarrow.parquet as pq

    return int(pq.read_metadata(path).num_rows)


FORMATS: dict[str, VectorFormat] = {
    "npy": _of_bytes(".npy", _npy_rows, _npy_header),
    "safetensors": _of_bytes(".safetensors", _safetensors_rows, _safetensors_header),
    "parquet": VectorFormat(
        ".parquet", 4, True, _parquet_writer, _parquet_join, _parquet_holds, _parquet_rows
    ),
    "jsonl": _of_bytes(".jsonl", _jsonl_rows, lambda *_: b"", _jsonl_writer),
}
"""Formats by name, which is the suffix without its dot."""
