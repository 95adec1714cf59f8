"""The nearest keys of every query, as many as each needs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from simcse_kit.metrics.search import Found, approximate_top_k, top_k

__all__ = ["Ranking"]

_RECALL_ON = 200


class Ranking:
    """Ranks keys for queries; lists that are long enough already are not searched for again.

    Args:
        queries: ``(n, d)`` unit vectors.
        keys: ``(m, d)`` unit vectors.
        search: ``exact``, or ``faiss``, which is approximate.
        figures: where the recall of an approximate search is put.
        progress: whether a bar is shown on stderr, on a terminal.
    """

    def __init__(
        self,
        queries: NDArray[np.float32],
        keys: NDArray[np.float32],
        *,
        search: Literal["exact", "faiss"],
        figures: dict[str, Any],
        progress: bool = False,
    ):
        self._queries = queries
        self._keys = keys
        self._approximate = search == "faiss"
        self._figures = figures
        self._progress = progress
        self._found: dict[int, Found] = {}

    def search(self, depths: Mapping[int, int]) -> None:
        """Find at least the best keys of some queries.

        Args:
            depths: number of a query -> how many keys are wanted. An approximate search is made
                once, for all queries, and gives every query as many as any needs.
        """
        most = len(self._keys)
        short = {
            number: min(most, depth)
            for number, depth in depths.items()
            if number not in self._found or len(self._found[number][1]) < min(most, depth)
        }
        if self._approximate:
            if not self._found and short:
                self._approximated(max(short.values()))
            return
        # A query with thousands of positives must not make the lists of all others as long.
        alike: dict[int, list[int]] = defaultdict(list)
        for number, depth in short.items():
            alike[depth.bit_length()].append(number)
        for members in alike.values():
            k = max(short[number] for number in members)
            scores, places = top_k(self._queries[members], self._keys, k, progress=self._progress)
            for at, number in enumerate(members):
                self._found[number] = scores[at], places[at]

    def best(self, number: int) -> list[tuple[int, float]]:
        """(key, score) of a query's nearest keys, the nearest first."""
        scores, places = (part.tolist() for part in self._found[number])
        return [(key, score) for key, score in zip(places, scores, strict=True) if key >= 0]

    def score(self, query: int, key: int) -> float:
        """The cosine similarity of a query and a key."""
        return float(self._queries[query] @ self._keys[key])

    def _approximated(self, k: int) -> None:
        scores, places = approximate_top_k(self._queries, self._keys, k)
        count = len(self._queries)
        some = np.linspace(0, count - 1, min(_RECALL_ON, count)).astype(np.int64)
        _, exact = top_k(self._queries[some], self._keys, k)
        shared = [len(np.intersect1d(*each)) for each in zip(exact, places[some], strict=True)]
        name = f"recall of the search on {len(some)} anchors"
        self._figures[name] = float(np.mean(shared) / k)
        self._found = {number: (scores[number], places[number]) for number in range(count)}
