"""The exact engine: blocked matrix products over the memory-mapped vectors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simcse_kit.metrics.blocked_search import top_k_in_blocks
from simcse_kit.search.engine import Engine

__all__ = ["ExactEngine"]

# Number of int8 candidates for each result, as in the quantized search of sentence-transformers.
_CANDIDATES = 4


class ExactEngine(Engine):
    """Search that compares each query with every vector.

    int8 vectors give candidates, four for each result, whose stored float32 vectors are then
    compared with the query.
    """

    def search(
        self, queries: NDArray[np.float32], top_k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Find the most similar vectors; see :meth:`Engine.search`."""
        if not self.vectors.has_codes:
            return top_k_in_blocks(queries, self.vectors.blocks(), top_k)
        wanted = min(_CANDIDATES * top_k, self.vectors.count)
        scores, rows = top_k_in_blocks(queries, self.vectors.code_blocks(), wanted)
        for place, query in enumerate(queries):
            scores[place] = self.vectors.take(rows[place]) @ query
        # Of equal scores the first row comes first.
        order = np.lexsort((rows, -scores), axis=1)[:, :top_k]
        return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)
