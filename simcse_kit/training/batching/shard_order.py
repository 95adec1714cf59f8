"""Order of an epoch over shards, of which few are read at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate

from simcse_kit.training.batching.order import EpochOrder, permutation_keys, permuted

__all__ = ["ShardOrder"]


class ShardOrder(EpochOrder):
    """Order that shuffles the shards, and the rows of every few shards together.

    Each epoch has another order. It depends on the seed and the numbers of rows only, so a resumed
    run continues it from the number of its step, with any number of processes.

    Args:
        shard_rows: number of rows of each shard.
        window: number of shards whose rows are shuffled together.
        seed: seed of the run.
        expect: function that is called with the numbers of the shards of this window and the next
            one, whenever a window begins.

    Examples:
        >>> list(ShardOrder([2, 3, 2], window=2, seed=1).visits(0))
        [2, 4, 0, 1, 3, 5, 6]
    """

    def __init__(
        self,
        shard_rows: Sequence[int],
        *,
        window: int,
        seed: int,
        expect: Callable[[Sequence[int]], None] | None = None,
    ):
        super().__init__(sum(shard_rows))
        self._sizes = list(shard_rows)
        self._starts = [0, *accumulate(shard_rows)]
        self._window = window
        self._seed = seed
        self._expect = expect

    def _shards(self, epoch: int) -> list[int]:
        """Return the shards in the order of an epoch."""
        keys, count = permutation_keys(self._seed, epoch), len(self._sizes)
        return [permuted(place, count, keys) for place in range(count)]

    def visits(self, epoch: int) -> Iterator[int]:
        """Yield the indices of an epoch."""
        before = epoch * self.rows
        shards = self._shards(epoch)
        following = shards + self._shards(epoch + 1)
        for at in range(0, len(shards), self._window):
            if self._expect is not None:
                end = min(at + self._window, len(shards))
                self._expect(following[at : end + self._window])
            rows = [
                range(self._starts[n], self._starts[n + 1]) for n in shards[at : at + self._window]
            ]
            ends = [0, *accumulate(map(len, rows))]
            keys = permutation_keys(self._seed, epoch, at)
            for place in range(ends[-1]):
                row = permuted(place, ends[-1], keys)
                shard = next(n for n, end in enumerate(ends[1:]) if row < end)
                yield before + rows[shard][row - ends[shard]]
