"""Rows that share a text, also through other rows."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from simcse_kit.data.prepare.normalize import letters_key

__all__ = ["Keys", "components", "key_of", "rows_of"]

KEY_BYTES = 16


def key_of(text: str) -> bytes:
    """16 bytes that texts share which have the same letters and digits."""
    return blake2b(letters_key(text).encode(), digest_size=KEY_BYTES).digest()


class Keys:
    """The keys of the texts of many rows, in 20 bytes a text."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._counts: list[int] = []
        self._parts: list[NDArray[np.int32]] = []

    def add(self, texts: Iterable[str]) -> None:
        """The texts of the next row, one or more."""
        before = len(self._bytes)
        for text in texts:
            self._bytes += key_of(text)
        self._counts.append((len(self._bytes) - before) // KEY_BYTES)
        if len(self._counts) >= 1 << 16:
            self._pack()

    def _pack(self) -> None:
        self._parts.append(np.asarray(self._counts, dtype=np.int32))
        self._counts = []

    @property
    def counts(self) -> NDArray[np.int32]:
        """(N,) texts of each row."""
        self._pack()
        self._parts = [np.concatenate(self._parts)]
        return self._parts[0]

    @property
    def digests(self) -> NDArray[np.uint64]:
        """(M, 2) keys of all texts, row after row, as two numbers that sort as the bytes do."""
        pairs: NDArray[np.uint64] = np.frombuffer(self._bytes, dtype=">u8").reshape(-1, 2)
        return pairs


def components(keys: NDArray[np.uint64], rows: NDArray[np.int32], count: int) -> NDArray[np.int32]:
    """Tell which rows share a key, also through other rows.

    Args:
        keys: (M,), equal exactly where two texts count as equal.
        rows: (M,) the row of each, ascending.
        count: N, the rows.

    Returns:
        (N,) the first row of the group that each row is in.
    """
    groups = np.arange(count, dtype=np.int32)
    ordered = np.sort(keys)
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    del ordered
    if not len(repeated):
        return groups
    # Most rows of most files share nothing, so the graph is one of the others alone.
    repeated = np.unique(repeated)
    codes = np.searchsorted(repeated, keys).clip(max=len(repeated) - 1)
    shared = np.flatnonzero(repeated[codes] == keys)
    tied, inside = np.unique(rows[shared], return_inverse=True)
    nodes = len(tied) + len(repeated)
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array(
        (np.ones(len(shared), dtype=np.int8), (inside, len(tied) + codes[shared])),
        shape=(nodes, nodes),
    )
    _, labels = connected_components(graph.tocsr(), directed=False)
    _, first, number = np.unique(labels[: len(tied)], return_index=True, return_inverse=True)
    groups[tied] = tied[first[number]]
    return groups


def rows_of(counts: NDArray[np.int32]) -> NDArray[np.int32]:
    """(M,) the row of each text, of the numbers of texts of each row."""
    return np.repeat(np.arange(len(counts), dtype=np.int32), counts)
