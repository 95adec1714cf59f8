"""Exact search for the most similar vectors, in shards that the workers of a cluster hold."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcse_kit.cluster.tasks import failures, in_order, task
from simcse_kit.errors import ConfigError
from simcse_kit.metrics.search import KEYS, QUERIES, Found, top_k
from simcse_kit.utils.progress import progress_bar

__all__ = ["ShardSearch", "merged"]


class ShardSearch:
    """Search of keys in shards; calls have the arguments and results of ``top_k``.

    A shard holds whole tiles of the local search, so that the products are those of the same
    matrices. Ray must be connected. The shards stay in its object store until the search is
    deleted.

    Args:
        tiles: Number of tiles of 16,384 keys in a shard.
    """

    def __init__(self, tiles: int = 8):
        self._width = tiles * KEYS
        self._keys: NDArray[np.float32] | None = None
        self._shards: list[tuple[int, int, Any]] = []

    def __call__(
        self,
        queries: NDArray[np.float32],
        keys: NDArray[np.float32],
        k: int,
        *,
        progress: bool = False,
        gpu: object = None,  # noqa: ARG002 (an argument of top_k)
    ) -> Found:
        """Find the ``k`` keys with the largest inner product for each query.

        Args:
            queries: ``(n, d)``; unit vectors give cosines.
            keys: ``(m, d)``.
            k: The number of keys, 1 to m.
            progress: Show a progress bar on a terminal or in a notebook after two seconds.
            gpu: Not used; the workers compare on their CPUs.

        Raises:
            ConfigError: ``k`` is not 1 to m.
            SimcseError: The cluster failed.
        """
        if not 1 <= k <= len(keys):
            raise ConfigError(f"the best {k} of {len(keys)} vectors; allowed: 1 to {len(keys)}")
        ray = import_module("ray")
        scores = np.empty((len(queries), k), dtype=np.float32)
        rows = np.empty((len(queries), k), dtype=np.int64)
        with (
            failures("search for neighbours"),
            progress_bar(len(queries), shown=progress, desc="searching", delay=2) as bar,
        ):
            self._place(ray, keys)

            # With many shards, the tasks of a few tiles of queries occupy all workers.
            started = (
                (start, self._search(ray.put(queries[start : start + QUERIES]), k))
                for start in range(0, len(queries), QUERIES)
            )
            for start, found in in_order(started):
                best = merged(
                    [
                        (values, first + places)
                        for (first, _, _), (values, places) in zip(
                            self._shards, ray.get(found), strict=True
                        )
                    ],
                    k,
                )
                end = start + len(best[0])
                scores[start:end], rows[start:end] = best
                bar.update(len(best[0]))
        return scores, rows

    def _search(self, queries: Any, k: int) -> list[Any]:
        """Start the tasks that compare a tile of queries with each shard."""
        searching = task(top_k)
        return [searching.remote(queries, shard, min(k, count)) for _, count, shard in self._shards]

    def _place(self, ray: Any, keys: NDArray[np.float32]) -> None:
        """Put the shards of keys into the object store, unless they are there."""
        if self._keys is keys:
            return
        self._keys = keys
        self._shards = []
        for first in range(0, len(keys), self._width):
            shard = keys[first : first + self._width]
            self._shards.append((first, len(shard), ray.put(shard)))


def merged(found: list[Found], k: int) -> Found:
    """Merge the results of shards, which are in the order of their rows.

    Args:
        found: Scores and row numbers of each shard, with the highest score first; of equal scores
            the lower row first.
        k: The number of keys that are kept.

    Examples:
        >>> first = np.array([[0.9, 0.5]], dtype=np.float32), np.array([[1, 0]])
        >>> second = np.array([[0.9, 0.7]], dtype=np.float32), np.array([[3, 2]])
        >>> merged([first, second], 3)[1]
        array([[1, 3, 2]])
    """
    scores = np.concatenate([each[0] for each in found], axis=1)
    rows = np.concatenate([each[1] for each in found], axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)
