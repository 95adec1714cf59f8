"""Recall of approximate search, and the vectors that it searches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from simcse_kit.metrics.blocked_search import Block, rescore, top_k_in_blocks
from simcse_kit.metrics.search import Found

__all__ = ["ArrayVectors", "Search", "VectorSource", "recall_measure", "sample_rows"]

_SAMPLE = 200
_BLOCK_ROWS = 16_384

Search = Callable[[NDArray[np.float32], int], Found]
"""Function of queries and a number of results, which returns cosines and row numbers."""


class VectorSource(Protocol):
    """Vectors that are read in blocks or by their rows, such as those of memory-mapped files."""

    @property
    def dim(self) -> int:
        """Number of dimensions."""

    @property
    def alive(self) -> NDArray[np.bool_] | None:
        """Which rows can be found, ``(n,)``; None for all of them."""

    def __len__(self) -> int:
        """Number of rows."""

    def blocks(self) -> Iterable[Block]:
        """Yield all vectors block by block."""

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors of some rows, ``(n, d)`` float32."""


class ArrayVectors:
    """The rows of a matrix as a :class:`VectorSource`.

    Args:
        vectors: ``(n, d)`` float32.
    """

    alive: NDArray[np.bool_] | None = None

    def __init__(self, vectors: NDArray[np.float32]):
        self._vectors = vectors
        self.dim = vectors.shape[1]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._vectors)

    def blocks(self) -> Iterable[Block]:
        """Yield all vectors block by block."""
        for start in range(0, len(self), _BLOCK_ROWS):
            yield start, self._vectors[start : start + _BLOCK_ROWS], None

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors of some rows."""
        return self._vectors[rows]


def recall_measure(source: VectorSource) -> Callable[[Search], float]:
    """Make a function that measures recall@10 of a search, compared with exact search.

    Up to 200 rows are the queries, and each is left out of its own results. A result counts if its
    cosine is at least that of the tenth true result, because equal texts are interchangeable.

    Args:
        source: The vectors that are searched.

    Returns:
        Function of a search that returns the mean share of the ten nearest rows that are found.
    """
    own = np.sort(sample_rows(source, _SAMPLE))
    k = min(10, _count(source) - 1)
    if k < 1:
        return lambda _: 1.0
    queries = source.take(own)
    _, exact = top_k_in_blocks(queries, source.blocks(), k + 1)
    lowest = _without(own, *rescore(queries, exact, source.take, k + 1), k)[:, -1:]

    def measure(search: Search) -> float:
        scores = _without(own, *search(queries, k + 1), k)
        return float((scores >= lowest - 1e-6).mean())

    return measure


def _count(source: VectorSource) -> int:
    return len(source) if source.alive is None else int(source.alive.sum())


def sample_rows(source: VectorSource, count: int) -> NDArray[np.int64]:
    """Draw distinct rows that can be found, always the same ones."""
    rows = np.arange(len(source)) if source.alive is None else np.flatnonzero(source.alive)
    chosen: NDArray[np.int64] = np.random.default_rng(0).permutation(rows)[:count]
    return chosen


def _without(
    own: NDArray[np.int64], scores: NDArray[np.float32], rows: NDArray[np.int64], k: int
) -> NDArray[np.float32]:
    """Leave the own row out of the results of each query, and keep ``k`` scores."""
    other = np.where(rows == own[:, None], -np.inf, scores).astype(np.float32)
    kept: NDArray[np.float32] = -np.sort(-other, axis=1)[:, :k]
    return kept
