"""The files that vectors are written to: .npy, .safetensors, .parquet and .jsonl.

Each is written piece by piece, and parts are joined to one file piece by piece, in bounded memory.
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

__all__ = ["FORMATS", "Format"]

Write = Callable[[Sequence[str], NDArray[np.float32]], object]
"""Appends rows: their sentences, and (rows, dim) float32."""

_Join = Callable[[Sequence[Path], Path, int, int], None]
_Holds = Callable[[Path, Sequence[Path], int, int], bool]

_PIECE = 1 << 22
_KEY = "embeddings"


@dataclass(frozen=True)
class Format:
    """One kind of file.

    Attributes:
        suffix: of its files.
        bytes_per_number: about what a coordinate takes.
        has_text: whether the sentences are in it.
        writer: ``writer(path, rows, dim)`` opens a file for so many rows and gives what appends
            them.
        join: ``join(parts, path, rows, dim)`` writes the rows of all parts, in order.
        holds: ``holds(path, parts, rows, dim)``: whether a file, read again, is what ``join``
            wrote.
        count: the rows of a file, read from it.
    """

    suffix: str
    bytes_per_number: float
    has_text: bool
    writer: Callable[[Path, int, int], AbstractContextManager[Write]]
    join: _Join
    holds: _Holds
    count: Callable[[Path], int]


# ---- .npy and .safetensors: a header, then the numbers row by row


def _npy_header(rows: int, dim: int) -> bytes:
    buffer = io.BytesIO()
    shape = {"descr": "<f4", "fortran_order": False, "shape": (rows, dim)}
    write_array_header_1_0(buffer, shape)
    return buffer.getvalue()


def _safetensors_header(rows: int, dim: int) -> bytes:
    entry = {"dtype": "F32", "shape": [rows, dim], "data_offsets": [0, 4 * rows * dim]}
    text = json.dumps({_KEY: entry}, separators=(",", ":")).encode()
    # The format wants the numbers to begin at a multiple of 8 bytes, and allows spaces for that.
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _binary(
    suffix: str, header: Callable[[int, int], bytes], count: Callable[[Path], int]
) -> Format:
    @contextmanager
    def writer(path: Path, rows: int, dim: int) -> Iterator[Write]:
        with path.open("wb") as file:
            file.write(header(rows, dim))
            yield lambda _, vectors: file.write(vectors.astype("<f4", copy=False).tobytes())

    def pieces(parts: Sequence[Path], rows: int, dim: int) -> Iterator[bytes]:
        yield header(rows, dim)
        for part in parts:
            yield from _pieces_of(part, len(header(count(part), dim)))

    join, holds = _by_pieces(pieces)
    return Format(suffix, 4, False, writer, join, holds, count)


def _pieces_of(path: Path, start: int = 0) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        yield from iter(lambda: file.read(_PIECE), b"")


def _by_pieces(
    pieces: Callable[[Sequence[Path], int, int], Iterator[bytes]],
) -> tuple[_Join, _Holds]:
    """``join`` and ``holds`` of a format whose whole file is known piece by piece."""

    def join(parts: Sequence[Path], path: Path, rows: int, dim: int) -> None:
        with path.open("wb") as file:
            file.writelines(pieces(parts, rows, dim))

    def holds(path: Path, parts: Sequence[Path], rows: int, dim: int) -> bool:
        with path.open("rb") as file:
            same = all(file.read(len(piece)) == piece for piece in pieces(parts, rows, dim))
            return same and not file.read(1)

    return join, holds


def _npy_rows(path: Path) -> int:
    return int(np.load(path, mmap_mode="r").shape[0])


def _safetensors_rows(path: Path) -> int:
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        return int(file.get_slice(_KEY).get_shape()[0])


# ---- .jsonl: an object a line


def _json_numbers(vectors: NDArray[np.float32]) -> list[str]:
    """Each row as a JSON list; the shortest decimals that read back to the same float32."""
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


def _jsonl_pieces(parts: Sequence[Path], rows: int, dim: int) -> Iterator[bytes]:  # noqa: ARG001
    for part in parts:
        yield from _pieces_of(part)


def _jsonl_rows(path: Path) -> int:
    return sum(piece.count(b"\n") for piece in _pieces_of(path))


def _jsonl() -> Format:
    join, holds = _by_pieces(_jsonl_pieces)
    return Format(".jsonl", 12, True, _jsonl_writer, join, holds, _jsonl_rows)


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


def _groups(paths: Sequence[Path]) -> Iterator[Any]:
    import pyarrow.parquet as pq

    for path in paths:
        with pq.ParquetFile(path) as source:
            for group in range(source.num_row_groups):
                yield source.read_row_group(group)


def _parquet_join(parts: Sequence[Path], path: Path, rows: int, dim: int) -> None:  # noqa: ARG001
    import pyarrow.parquet as pq

    with pq.ParquetWriter(path, _schema(dim)) as file:
        for group in _groups(parts):
            file.write_table(group)


def _parquet_holds(path: Path, parts: Sequence[Path], rows: int, dim: int) -> bool:  # noqa: ARG001
    both = zip_longest(_groups([path]), _groups(parts))
    return all(ours is not None and ours.equals(theirs) for ours, theirs in both)


def _parquet_rows(path: Path) -> int:
    import pyarrow.parquet as pq

    return int(pq.read_metadata(path).num_rows)


FORMATS: dict[str, Format] = {
    "npy": _binary(".npy", _npy_header, _npy_rows),
    "safetensors": _binary(".safetensors", _safetensors_header, _safetensors_rows),
    "parquet": Format(
        ".parquet", 4, True, _parquet_writer, _parquet_join, _parquet_holds, _parquet_rows
    ),
    "jsonl": _jsonl(),
}
"""By name, which is the suffix without its dot."""
