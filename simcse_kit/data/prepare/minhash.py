"""Near duplicates: candidates by MinHash, decided by exact Jaccard similarity.

A text is the set of its runs of 4 characters. MinHash (Broder, On the Resemblance and Containment
of Documents, 1997) with bands: rows that agree in all hashes of a band are compared. A pair whose
similarity equals the threshold is missed in one case of 1,000, a more similar pair less often. No
pair below the threshold is removed.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["BandKeys", "NearDuplicates", "alike", "bands_for", "jaccard", "shingles"]

SHINGLE = 4
LEAST_THRESHOLD = 0.5
"""Smallest threshold; below it, most rows would have to be compared with most others."""

_MISSED = 1e-3
_HASHES = 256
BATCH = 2000
"""Number of rows whose band keys are computed together: their hashes fit the cache."""


def shingles(text: str) -> frozenset[str]:
    """Return the distinct runs of 4 characters of a text, or a shorter text itself."""
    return frozenset(text[start : start + SHINGLE] for start in range(max(len(text) - 3, 1)))


def jaccard(first: str, second: str) -> float:
    """Compute the share of the shingles of two texts that both have, 0 to 1.

    Examples:
        >>> jaccard("acatsat", "acatsits")
        0.2857142857142857
    """
    if first == second:
        return 1.0
    one, two = shingles(first), shingles(second)
    shared = len(one & two)
    return shared / (len(one) + len(two) - shared)


def bands_for(threshold: float) -> tuple[int, int]:
    """Choose the number of bands, and the largest number of hashes in each that 256 allow."""
    found = (1, 1)
    for size in range(1, _HASHES + 1):
        agree = threshold**size
        bands = 1 if agree >= 1 else math.ceil(math.log(_MISSED) / math.log1p(-agree))
        if bands * size > _HASHES or (threshold == 1 and size > 8):
            break
        found = (bands, size)
    return found


def alike(texts: Sequence[str], others: Sequence[str], threshold: float) -> bool:
    """Check whether every text of a row is similar to its counterpart in another row."""
    return len(texts) == len(others) and all(
        jaccard(text, each) >= threshold for text, each in zip(texts, others, strict=True)
    )


class BandKeys:
    """Computation of the band keys of rows; rows that share a key of a band are candidates.

    Args:
        threshold: Smallest Jaccard similarity of near duplicates, 0.5 to 1.

    Attributes:
        bands: Number of keys of a row.
    """

    def __init__(self, threshold: float):
        self.bands, self._size = bands_for(threshold)
        rng = np.random.default_rng(20_240_101)
        hashes = self.bands * self._size
        self._factors = rng.integers(0, 1 << 31, hashes, dtype=np.uint32) * np.uint32(2) + 1
        self._shifts = rng.integers(0, 1 << 32, hashes, dtype=np.uint32)
        self._places = rng.integers(0, 1 << 63, SHINGLE + 1, dtype=np.uint64) * np.uint64(2) + 1
        self._mixers = rng.integers(0, 1 << 63, self._size, dtype=np.uint64) * np.uint64(2) + 1

    def of(self, rows: Sequence[Sequence[str]]) -> NDArray[np.uint64]:
        """Return the ``(rows, bands)`` keys; a few thousand rows at a time stay in the cache."""
        values, starts = self._hashed(rows)
        least = np.empty((len(rows), len(self._factors)), dtype=np.uint32)
        for number, (factor, shift) in enumerate(zip(self._factors, self._shifts, strict=True)):
            least[:, number] = np.minimum.reduceat(values * factor + shift, starts)
        wide = least.reshape(len(rows), self.bands, self._size).astype(np.uint64)
        return _mixed((wide * self._mixers).sum(axis=2, dtype=np.uint64))

    def _hashed(
        self, rows: Sequence[Sequence[str]]
    ) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """Hash the shingles of all rows, end to end, and give the place where each row begins.

        Shingles of different columns are kept apart. If every text passes the threshold, so does
        the row, whose similarity is a weighted mean of theirs.
        """
        # NUL occurs in no text.
        texts = [text.ljust(SHINGLE, "\0") for row in rows for text in row]
        places = np.array([place for row in rows for place in range(len(row))], dtype=np.uint64)
        codes = np.frombuffer("".join(texts).encode("utf-32-le"), dtype="<u4").astype(np.uint64)
        lengths = np.array([len(text) for text in texts])
        owner = np.repeat(np.arange(len(texts)), lengths)
        windows = len(codes) - SHINGLE + 1
        value = places[owner[:windows]] * self._places[SHINGLE]
        for at in range(SHINGLE):
            value += codes[at : at + windows] * self._places[at]
        whole = owner[:windows] == owner[SHINGLE - 1 :]
        hashed = (_mixed(value[whole]) >> np.uint64(32)).astype(np.uint32)
        counts = np.add.reduceat(
            lengths - SHINGLE + 1, np.cumsum([0, *(len(row) for row in rows)])[:-1]
        )
        return hashed, np.cumsum([0, *counts.tolist()])[:-1]


class NearDuplicates:
    """Rows of normal keys, of which :meth:`keep` finds the near duplicates.

    Memory: the texts, 8 bytes for each band of each row, and 14 bytes for each band in which a row
    is not alone.

    Args:
        threshold: Smallest Jaccard similarity of near duplicates, 0.5 to 1. Every text of a row
            must be that similar to its counterpart.
    """

    def __init__(self, threshold: float):
        self.threshold = threshold
        self._keys = BandKeys(threshold)
        self._rows: list[tuple[str, ...]] = []
        self._signed: list[NDArray[np.uint64]] = []
        self._waiting = 0

    def add(self, texts: tuple[str, ...]) -> None:
        """Add a row."""
        self._rows.append(texts)
        self._waiting += 1
        if self._waiting == BATCH:
            self._sign()

    def keep(self) -> NDArray[np.bool_]:
        """Return a ``(rows,)`` mask, False for near duplicates of an earlier row that is kept."""
        self._sign()
        kept = np.ones(len(self._rows), dtype=np.bool_)
        buckets = _Buckets(self._signed)
        for row in buckets.rows.tolist():
            own = self._rows[row]
            if any(alike(own, self._rows[n], self.threshold) for n in buckets.candidates(row)):
                kept[row] = False
            else:
                buckets.put(row)
        return kept

    def _sign(self) -> None:
        """Compute the band keys of the rows added since the last call."""
        if self._waiting:
            self._signed.append(self._keys.of(self._rows[-self._waiting :]))
            self._waiting = 0


class _Buckets:
    """Rows that share a band key, in arrays of numbers.

    Only buckets of two or more rows are held. An entry is a row in a bucket; the entries of a row
    follow each other.

    Args:
        signed: Parts of the ``(rows, bands)`` band keys.

    Attributes:
        rows: The rows with an entry, in ascending order.
    """

    def __init__(self, signed: Sequence[NDArray[np.uint64]]):
        count = sum(map(len, signed))
        bands = signed[0].shape[1] if signed else 0
        found = []
        buckets = 0
        for band in range(bands):
            keys = np.concatenate([part[:, band] for part in signed])
            _, bucket, sizes = np.unique(keys, return_inverse=True, return_counts=True)
            shared = sizes > 1
            rows = np.flatnonzero(shared[bucket]).astype(np.int32)
            numbers = buckets + np.cumsum(shared) - 1
            found.append((rows, numbers[bucket[rows]].astype(np.int32)))
            buckets += int(shared.sum())
        entries = np.zeros(count + 1, dtype=np.int64)
        for rows, _ in found:
            entries[rows + 1] += 1
        self.rows = np.flatnonzero(entries[1:])
        self._starts = np.cumsum(entries)
        self._bucket = np.empty(int(self._starts[-1]), dtype=np.int32)
        places = self._starts[:-1].copy()
        while found:
            rows, numbers = found.pop()
            self._bucket[places[rows]] = numbers
            places[rows] += 1
        self._row = array("i")
        rows = np.repeat(np.arange(count, dtype=np.int32), entries[1:])
        self._row.frombytes(rows.view(np.uint8).data)
        # Last entry of each bucket, and the entry before each entry; -1 if there is none.
        none = array("i" if len(self._bucket) < 2**31 else "q", [-1])
        self._last = none * buckets
        self._before = none * len(self._bucket)

    def candidates(self, row: int) -> set[int]:
        """Return the rows that were put into the buckets of a row."""
        found: set[int] = set()
        for bucket in self._bucket[self._starts[row] : self._starts[row + 1]].tolist():
            entry = self._last[bucket]
            while entry >= 0:
                found.add(self._row[entry])
                entry = self._before[entry]
        return found

    def put(self, row: int) -> None:
        """Put a row into its buckets."""
        start = int(self._starts[row])
        buckets = self._bucket[start : self._starts[row + 1]].tolist()
        for entry, bucket in enumerate(buckets, start):
            self._before[entry] = self._last[bucket]
            self._last[bucket] = entry


def _mixed(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix all bits of ``value`` (the finalizer of splitmix64)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
