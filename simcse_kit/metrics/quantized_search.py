"""Exact search over vectors in fewer bits, with rescoring of the candidates."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcse_kit.errors import ConfigError
from simcse_kit.metrics.search import Found, top_k
from simcse_kit.metrics.vector_precision import (
    OutputPrecision,
    dequantize_vectors,
    vector_dtype,
)

__all__ = ["top_k_quantized"]

_KEYS = 16_384


def top_k_quantized(
    queries: NDArray[np.floating[Any]],
    keys: NDArray[Any],
    k: int,
    *,
    precision: OutputPrecision,
    ranges: NDArray[np.floating[Any]] | None = None,
    originals: NDArray[np.floating[Any]] | None = None,
    multiplier: int = 4,
) -> Found:
    """Find the ``k`` keys with the largest inner product for each query.

    Keys of float16, int8 and uint8 are converted back and compared with the queries. Of binary
    keys, the ``multiplier * k`` with the fewest different bits are candidates, which are compared
    with the queries themselves (Yamada et al. 2021, arXiv 2106.00882). If ``originals`` are given,
    the candidates of every precision are compared once more with these.

    Args:
        queries: ``(n, d)`` float vectors; unit vectors give cosines if the keys were unit vectors.
        keys: ``(m, ...)`` from :func:`~simcse_kit.metrics.vector_precision.quantize_vectors`.
        k: Number of keys, 1 to m.
        precision: Number format of the keys.
        ranges: ``(2, d)``, the ranges that int8 and uint8 keys were converted with.
        originals: ``(m, d)`` float vectors of the keys, which may be a memory map of a file.
        multiplier: Number of candidates for each wanted key.

    Raises:
        ConfigError: ``k`` or ``multiplier`` is too small or too large, ranges are missing, or the
            keys do not fit the queries.

    Examples:
        >>> from simcse_kit.metrics.vector_precision import quantize_vectors
        >>> vectors = np.random.default_rng(0).normal(size=(1000, 64)).astype(np.float32)
        >>> keys = quantize_vectors(vectors, "ubinary")
        >>> scores, rows = top_k_quantized(
        ...     vectors[:2], keys, 1, precision="ubinary", originals=vectors
        ... )
        >>> rows.tolist()
        [[0], [1]]
    """
    dim = queries.shape[1]
    expected = vector_dtype(precision, dim).shape
    if keys.ndim != 2 or keys.shape[1:] != expected:
        raise ConfigError(
            f"keys of shape {keys.shape} are not {precision} vectors of {dim} dimensions, which "
            f"the queries have; give (m, {expected[0]})"
        )
    if multiplier < 1:
        raise ConfigError(f"multiplier is {multiplier}; it must be at least 1")
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    bits = precision.endswith("binary")
    rescored = bits or originals is not None
    count = max(k, min(k * multiplier, len(keys))) if rescored else k
    # The inner product of bits as -1 and 1 is d minus twice the number of different bits.
    asked = np.where(queries > 0, np.float32(1), np.float32(-1)) if bits else queries
    scores, rows = _in_tiles(asked, keys, count, precision, ranges)
    if not rescored:
        return scores, rows
    for at, (query, candidates) in enumerate(zip(queries, rows, strict=True)):
        if originals is None:
            vectors = dequantize_vectors(keys[candidates], precision, dim, ranges)
        else:
            vectors = np.asarray(originals[candidates], dtype=np.float32)
        scores[at] = vectors @ query
    # Of equal scores the first row comes first.
    order = np.lexsort((rows, -scores), axis=1)[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)


def _in_tiles(
    queries: NDArray[np.float32],
    keys: NDArray[Any],
    k: int,
    precision: OutputPrecision,
    ranges: NDArray[np.floating[Any]] | None,
) -> Found:
    """Search tile by tile, so that only one tile of keys is in float32 at a time."""
    best: Found | None = None
    for start in range(0, max(1, len(keys)), _KEYS):
        tile = dequantize_vectors(keys[start : start + _KEYS], precision, queries.shape[1], ranges)
        scores, rows = top_k(queries, tile, min(k, len(tile)) if len(keys) >= k else k)
        rows += start
        if best is not None:
            scores, rows = np.hstack([best[0], scores]), np.hstack([best[1], rows])
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        best = np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)
    assert best is not None
    return best
