"""Order of an epoch: a function of seed and epoch, in constant memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from torch.utils.data import Sampler

__all__ = ["ShuffledOrder", "permuted"]

_ROUNDS = 4


class ShuffledOrder(Sampler[int]):
    """Sampler of every row once per epoch, in a different random order in each epoch.

    The indices continue from epoch to epoch: row n of N has index n + N·epoch. In this way the
    workers of a data loader, which have a copy of the data set, know the epoch of each index.

    The sampler of torch keeps the whole permutation as a list: 400 MB for ten million rows.

    Args:
        rows: number of rows.
        seed: seed of the run.
    """

    def __init__(self, rows: int, seed: int):
        self._rows = rows
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; the data loader calls this at the start of each one."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._rows

    def __iter__(self) -> Iterator[int]:
        keys = _keys(self._seed, self._epoch)
        before = self._epoch * self._rows
        return (before + permuted(index, self._rows, keys) for index in range(self._rows))


def _keys(seed: int, epoch: int) -> list[int]:
    digest = hashlib.blake2b(f"{seed}:{epoch}".encode(), digest_size=8 * _ROUNDS).digest()
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
