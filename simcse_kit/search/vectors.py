"""The vectors of an index, memory-mapped from its segments."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcse_kit.errors import DataError
from simcse_kit.metrics.blocked_search import Block
from simcse_kit.metrics.vector_precision import dequantize_vectors
from simcse_kit.search.manifest import Manifest

__all__ = ["BLOCK_ROWS", "CODES", "RANGES", "Vectors", "open_array"]

BLOCK_ROWS = 16_384
"""Largest number of rows in a block of a search."""

CODES, RANGES = "codes.npy", "ranges.npy"
"""Files of a segment with its int8 vectors, and with the ranges of their dimensions."""


class Vectors:
    """All vectors of one state of an index; rows are numbered from 0 over all segments.

    Args:
        folder: Folder of the index.
        manifest: The state.

    Attributes:
        dim: Number of dimensions.
        alive: ``(rows,)``, False for deleted rows; None if no row is deleted.
        count: Number of rows that are not deleted.
        has_codes: Whether there are int8 vectors.

    Raises:
        DataError: A file holds something else.
    """

    def __init__(self, folder: Path, manifest: Manifest):
        self.dim = manifest.dim
        self.count = manifest.count
        self.has_codes = manifest.precision == "int8"
        self._parts: list[NDArray[Any]] = []
        self._codes: list[tuple[NDArray[np.int8], NDArray[np.float32]]] = []
        for segment in manifest.segments:
            parts = [open_array(folder / name) for name in segment.vectors]
            self._parts += parts
            arrays = parts
            if self.has_codes:
                place = folder / segment.name
                codes, ranges = open_array(place / CODES), open_array(place / RANGES)
                self._codes.append((codes, np.array(ranges)))
                arrays = [*parts, codes]
            rows = {sum(map(len, parts)), *map(len, arrays[len(parts) :])}
            shaped = all(a.ndim == 2 and a.shape[1] == self.dim for a in arrays)
            if rows != {segment.rows} or not shaped:
                raise DataError(
                    f"the segment does not hold {segment.rows:,} vectors of {self.dim} dimensions; "
                    "build the index again with --overwrite",
                    file=folder / segment.name,
                )
        self._starts = [0, *accumulate(map(len, self._parts))]
        self.alive: NDArray[np.bool_] | None = None
        if manifest.deleted is not None:
            self.alive = np.ones(len(self), dtype=np.bool_)
            self.alive[open_array(folder / manifest.deleted)] = False

    def __len__(self) -> int:
        """Number of rows, deleted ones included."""
        return self._starts[-1]

    def blocks(self) -> Iterator[Block]:
        """Yield the stored vectors block by block."""
        for first, part in zip(self._starts, self._parts, strict=False):
            for start in range(0, len(part), BLOCK_ROWS):
                vectors = part[start : start + BLOCK_ROWS]
                yield first + start, vectors, self._counted(first + start, len(vectors))

    def code_blocks(self) -> Iterator[Block]:
        """Yield approximate vectors block by block, converted from int8."""
        first = 0
        for codes, ranges in self._codes:
            for start in range(0, len(codes), BLOCK_ROWS):
                part = codes[start : start + BLOCK_ROWS]
                vectors = dequantize_vectors(part, "int8", self.dim, ranges)
                yield first + start, vectors, self._counted(first + start, len(part))
            first += len(codes)

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the stored vectors of some rows, ``(n, d)`` float32."""
        found = np.empty((len(rows), self.dim), dtype=np.float32)
        parts = np.searchsorted(self._starts, rows, side="right") - 1
        for part in np.unique(parts):
            chosen = parts == part
            found[chosen] = self._parts[part][rows[chosen] - self._starts[part]]
        return found

    def _counted(self, first: int, rows: int) -> NDArray[np.bool_] | None:
        if self.alive is None:
            return None
        counted = self.alive[first : first + rows]
        return None if counted.all() else counted


def open_array(path: Path) -> NDArray[Any]:
    """Map a .npy file into memory.

    Raises:
        DataError: The file is not a readable .npy file.
        FileNotFoundError: The file does not exist.
    """
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"not a readable .npy file ({error}); build the index again with --overwrite", file=path
        ) from None
    # A plain array; slices of a memmap object cost more.
    return np.asarray(array).view(np.ndarray)
