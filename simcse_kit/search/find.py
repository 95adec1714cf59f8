"""Search in one state of an index, with thresholds, filters and hybrid ranking."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from simcse_kit.errors import DataError
from simcse_kit.metrics.blocked_search import exact_products
from simcse_kit.search.engine import Engine
from simcse_kit.search.hits import Hit, hits_of
from simcse_kit.search.hybrid import reciprocal_rank_fusion
from simcse_kit.search.queries import check_search, check_vectors
from simcse_kit.search.state import State

__all__ = ["find"]

# Number of results of each ranking that are fused. Those of higher ranks hardly change the fusion.
_DEPTH = 100


def find(
    state: State,
    vectors: NDArray[np.float32],
    top_k: int,
    threshold: float | None,
    *,
    texts: Sequence[str] | None = None,
    filter: str | None = None,
) -> list[list[Hit]]:
    """Find the documents of each query.

    Args:
        state: State of the index.
        vectors: ``(q, d)`` unit vectors of the queries.
        top_k: Largest number of documents per query.
        threshold: Lowest cosine; None for no limit.
        texts: Texts of the queries, for hybrid search; None to rank by the cosines alone.
        filter: Condition that the metadata meet; None for all documents.

    Raises:
        ConfigError: ``top_k`` or the threshold is not allowed, or the filter cannot be used.
        DataError: The vectors have another shape, or hold NaN or infinity, or there is not one text
            for each vector.
        MissingExtraError: bm25s is not installed.
    """
    check_search(top_k, threshold)
    vectors = check_vectors(vectors, state.manifest.dim)
    if texts is not None and len(texts) != len(vectors):
        raise DataError(f"{len(texts)} texts and {len(vectors)} vectors of queries; give as many")
    engine = state.engine if filter is None else state.engine.filtered(filter)
    lowest = -np.inf if threshold is None else threshold
    if not len(state) or not len(vectors):
        return [[] for _ in vectors]
    if texts is not None:
        return list(_hybrid(state, engine, vectors, texts, (top_k, lowest)))
    scores, rows = engine.search(vectors, min(top_k, len(state)))
    return [list(hits_of(state, *pair, lowest)) for pair in zip(scores, rows, strict=True)]


def _hybrid(
    state: State,
    engine: Engine,
    vectors: NDArray[np.float32],
    texts: Sequence[str],
    limits: tuple[int, float],
) -> Iterator[list[Hit]]:
    """Fuse the rankings by cosine and by BM25."""
    top_k, lowest = limits
    depth = max(_DEPTH, top_k)
    _, nearest = engine.search(vectors, min(depth, len(state)))
    for vector, text, near in zip(vectors, texts, nearest, strict=True):
        lexical = state.lexical.rank(text, depth)
        lexical = lexical[engine.matching(lexical)]
        fused = reciprocal_rank_fusion([near[near >= 0].tolist(), lexical.tolist()])
        rows = np.array([row for row, _ in fused], dtype=np.int64)
        cosines = exact_products(state.vectors.take(rows), vector)
        kept = np.flatnonzero(cosines >= lowest)[:top_k]
        scores = [fused[place][1] for place in kept]
        yield list(hits_of(state, cosines[kept], rows[kept], lowest, scores))
