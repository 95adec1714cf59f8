"""Order of an epoch: a function of seed and epoch, in constant memory."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain, count, repeat

from torch.utils.data import Sampler

__all__ = ["EpochOrder", "ShuffledOrder", "permutation_keys", "permuted"]

_ROUNDS = 4


class EpochOrder(Sampler[int]):
    """Sampler whose order is a function of the epoch alone, so that a resumed run repeats it.

    An index tells the row and the pass over it: row n of N, read for the p-th time from 0, has
    index n + N·p. In this way the workers of a data loader, which have a copy of the data set, know
    the pass of each index.

    Args:
        rows: number of rows.
    """

    def __init__(self, rows: int):
        self.rows = rows
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; the data loader calls this at the start of each one."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[int]:
        return self.visits(self._epoch)

    @abstractmethod
    def visits(self, epoch: int) -> Iterator[int]:
        """Yield the indices of an epoch."""

    @property
    def source_rows(self) -> Sequence[int]:
        """Number of rows of each source; a batch has rows of one source."""
        return [self.rows]

    def sources_of_batches(self, epoch: int) -> Iterator[int]:  # noqa: ARG002
        """Yield the source of each batch of an epoch, and possibly more."""
        return repeat(0)

    def stream(self, source: int, epoch: int) -> Iterator[int]:  # noqa: ARG002
        """Yield the indices of a source from the start of an epoch on, without end."""
        return chain.from_iterable(map(self.visits, count(epoch)))


class ShuffledOrder(EpochOrder):
    """Order of every row once per epoch, in a different random order in each epoch.

    The sampler of torch keeps the whole permutation as a list: 400 MB for ten million rows.

    Args:
        rows: number of rows.
        seed: seed of the run.
    """

    def __init__(self, rows: int, seed: int):
        super().__init__(rows)
        self._seed = seed

    def visits(self, epoch: int) -> Iterator[int]:
        """Yield the indices of an epoch."""
        keys = permutation_keys(self._seed, epoch)
        before = epoch * self.rows
        return (before + permuted(index, self.rows, keys) for index in range(self.rows))


@lru_cache(maxsize=1024)
def permutation_keys(*parts: int) -> list[int]:
    """Derive the keys of a permutation from numbers such as the seed and the epoch."""
    text = ":".join(map(str, parts))
    digest = hashlib.blake2b(text.encode(), digest_size=8 * _ROUNDS).digest()
    return [int.from_bytes(digest[at : at + 8], "little") for at in range(0, len(digest), 8)]


def permuted(index: int, size: int, keys: list[int]) -> int:
    """Compute the image of ``index`` in the permutation of ``range(size)`` defined by ``keys``.

    A Feistel network (Luby and Rackoff 1988) permutes the numbers of the next even number of bits.
    Results of ``size`` or more go through it again until they are smaller, which keeps the map one
    to one (Black and Rogaway 2002, "Ciphers with arbitrary finite domains").
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = index >> half, index & mask
        for key in keys:
            # Multiply and fold: the high bits of the product depend on all bits below them.
            mixed = ((right ^ key) * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
            mixed = ((mixed ^ (mixed >> 32)) * 0xD6E8FEB86659FD93) & 0xFFFFFFFFFFFFFFFF
            left, right = right, left ^ ((mixed >> 32) & mask)
        index = (left << half) | right
        if index < size:
            return index
