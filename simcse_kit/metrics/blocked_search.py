"""Exact top-k search over vectors that arrive in blocks, such as memory-mapped files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Block", "exact_products", "rescore", "top_k_in_blocks"]

Block = tuple[int, NDArray[Any], NDArray[np.bool_] | None]
"""Number of the first row, vectors ``(n, d)``, and which rows count (None for all of them)."""

# Largest number of queries that are compared with a block at a time, which bounds the scores.
_QUERIES = 256
# Up to this number of queries, products row by row are faster than a product of matrices: for one
# query, they are nearly as fast as the vectors can be read.
_FEW = 4


def top_k_in_blocks(
    queries: NDArray[np.float32], blocks: Iterable[Block], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Find the ``k`` vectors with the largest inner product for each query.

    Of vectors with equal scores, those with lower row numbers come first. Extra memory is the
    scores of at most 256 queries and one block, plus a float32 copy of a block in another format.
    NumPy multiplies the matrices, because its library is several times faster than that of torch
    on some processors.

    Args:
        queries: ``(q, d)``; unit vectors give cosines.
        blocks: Blocks in ascending order of their rows.
        k: Number of vectors, at least 1; it may be larger than the number of vectors.

    Returns:
        Scores and row numbers, ``(q, k)`` each, with the highest score first. Where there are fewer
        than ``k`` vectors, the row ends with scores of minus infinity and row numbers of -1.

    Examples:
        >>> blocks = [(0, np.eye(2, dtype=np.float32), None)]
        >>> scores, rows = top_k_in_blocks(np.array([[0.6, 0.8]], dtype=np.float32), blocks, 3)
        >>> rows
        array([[ 1,  0, -1]])
    """
    scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    rows = np.full((len(queries), k), -1, dtype=np.int64)
    buffer = np.empty(0, dtype=np.float32)
    for first, vectors, counted in blocks:
        vectors = vectors.astype(np.float32, copy=False)
        most = min(_QUERIES, len(queries)) * len(vectors)
        if len(buffer) < most:  # reused, because the system would clear the pages of a new array
            buffer = np.empty(most, dtype=np.float32)
        for start in range(0, len(queries), _QUERIES):
            part = slice(start, start + _QUERIES)
            shape = (len(queries[part]), len(vectors))
            products = buffer[: shape[0] * shape[1]].reshape(shape)
            _multiply(queries[part], vectors, products)
            if counted is not None:
                products[:, ~counted] = -np.inf
            _merge(scores[part], rows[part], products, first)
    return scores, rows


def _multiply(
    queries: NDArray[np.float32], vectors: NDArray[np.float32], products: NDArray[np.float32]
) -> None:
    """Compute all inner products of queries and vectors."""
    vecdot = getattr(np, "vecdot", None)  # since NumPy 2
    if vecdot is None or len(queries) > _FEW:
        np.matmul(queries, vectors.T, out=products)
        return
    for query, line in zip(queries, products, strict=True):
        vecdot(vectors, query, out=line)


def _merge(
    best: NDArray[np.float32], rows: NDArray[np.int64], scores: NDArray[np.float32], first: int
) -> None:
    """Update the best scores and their rows with the scores of a block, in place."""
    k = best.shape[1]
    if not scores.shape[1]:
        return
    # After a few blocks, most blocks have no score that is high enough for most queries.
    for query in np.flatnonzero(scores.max(axis=1) > best[:, -1]):
        line = scores[query]
        places = np.flatnonzero(line > best[query, -1])
        if len(places) > k:
            lowest = np.partition(line[places], len(places) - k)[len(places) - k]
            places = places[line[places] >= lowest]
        values = np.concatenate([best[query], line[places]])
        numbers = np.concatenate([rows[query], places + first])
        order = np.argsort(-values, kind="stable")[:k]
        best[query], rows[query] = values[order], numbers[order]


def rescore(
    queries: NDArray[np.float32],
    rows: NDArray[np.int64],
    take: Callable[[NDArray[np.int64]], NDArray[np.float32]],
    k: int,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Compare queries with their candidates, and keep the best of them.

    Equal vectors have equal scores, and of equal scores the first row comes first.

    Args:
        queries: ``(q, d)``.
        rows: ``(q, c)`` row numbers of candidates; -1 for none.
        take: Function that returns the vectors of some rows, ``(n, d)``.
        k: Number of candidates that are kept, 1 to c.

    Returns:
        Scores and row numbers, ``(q, k)`` each; minus infinity and -1 where there is none.
    """
    scores = np.full(rows.shape, -np.inf, dtype=np.float32)
    for place, query in enumerate(queries):
        known = rows[place] >= 0
        scores[place, known] = exact_products(take(rows[place][known]), query)
    order = np.lexsort((rows, -scores), axis=1)[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)


def exact_products(vectors: NDArray[np.float32], query: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute inner products that do not depend on the place of a vector, added in float64.

    A product of matrices adds in another order for some rows, so that equal vectors can have
    different scores.

    Args:
        vectors: ``(n, d)``.
        query: ``(d,)``.

    Returns:
        ``(n,)``.
    """
    products: NDArray[np.float64] = (vectors * query).sum(axis=1, dtype=np.float64)
    return products.astype(np.float32)
