"""The exact engine: blocked matrix products over the memory-mapped vectors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simcse_kit.metrics.blocked_search import rescore, top_k_in_blocks
from simcse_kit.search.engine import Engine

__all__ = ["ExactEngine"]

# Number of int8 candidates for each result, as in the quantized search of sentence-transformers:
# https://github.com/huggingface/sentence-transformers
_CANDIDATES = 4
# Products of equal vectors differ in their last bits by their place in a block, so that a few more
# candidates are needed to find the first of them.
_MORE = 8


class ExactEngine(Engine):
    """Search that compares each query with every vector.

    int8 vectors give four candidates for each result. All candidates are compared once more with
    the stored vectors, in an order of additions that does not depend on their place.
    """

    def search(
        self, queries: NDArray[np.float32], top_k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Find the most similar vectors; see :meth:`Engine.search`."""
        coarse = self.vectors.has_codes
        blocks = self.vectors.code_blocks() if coarse else self.vectors.blocks()
        wanted = max(top_k + _MORE, _CANDIDATES * top_k if coarse else 0)
        _, rows = top_k_in_blocks(queries, blocks, min(wanted, self.vectors.count))
        return rescore(queries, rows, self.vectors.take, top_k)
