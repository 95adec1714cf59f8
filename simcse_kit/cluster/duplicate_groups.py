"""Groups of duplicates within a partition of rows, as arrays.

Equal rows have equal digests, and rows in a bucket of MinHash are candidates for near duplicates.
Each function handles one partition; :mod:`simcse_kit.cluster.dedupe` spreads them over workers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "DIGESTS",
    "PAIRS",
    "PLACES",
    "candidates",
    "distinct_pairs",
    "equal_rows",
    "not_first",
    "parts_of",
    "states",
]

DIGESTS = np.dtype(
    [("row", "<i8"), ("exact", "<u8"), ("exact2", "<u8"), ("normal", "<u8"), ("normal2", "<u8")]
)
"""A row number, the digest of its texts and that of their normal keys, as halves of 64 bits."""

PLACES = np.dtype([("row", "<i8"), ("key", "<u8")])
"""A row number and the key of its bucket."""

PAIRS = np.dtype([("row", "<i8"), ("later", "<i8")])
"""Two row numbers, the lower first."""

REMOVED, KEPT, UNKNOWN = 0, 1, 2
"""States of a row."""


def parts_of(records: NDArray[np.void], field: str, parts: int) -> list[NDArray[np.void]]:
    """Split records into ``parts`` by the value of a field; equal values stay together.

    Examples:
        >>> records = np.array([(0, 7), (1, 8), (2, 7)], dtype=PLACES)
        >>> [part["row"].tolist() for part in parts_of(records, "key", 2)]
        [[1], [0, 2]]
    """
    # The number of a row is no hash, but its remainders are as even.
    number = (records[field].astype(np.uint64) % np.uint64(parts)).astype(np.int64)
    order = np.argsort(number, kind="stable")
    bounds = np.searchsorted(number[order], np.arange(1, parts))
    return np.split(records[order], bounds)


def not_first(*columns: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Mark the records whose values in all columns occurred in a record before.

    Examples:
        >>> not_first(np.array([7, 8, 7], dtype=np.uint64)).tolist()
        [False, False, True]
    """
    order = np.lexsort(columns)  # stable
    repeated = np.zeros(len(order), dtype=np.bool_)
    if len(order):
        same = [column[order][1:] == column[order][:-1] for column in columns]
        repeated[order[1:]] = np.logical_and.reduce(same)
    return repeated


def equal_rows(records: NDArray[np.void]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the duplicates of earlier rows among records of the type :data:`DIGESTS`.

    Args:
        records: All records with the digests that occur in them, in the order of their rows.

    Returns:
        Numbers of the rows whose texts are equal, and of those whose normal keys alone are equal.
    """
    exact = not_first(records["exact"], records["exact2"])
    normal = not_first(records["normal"], records["normal2"]) & ~exact
    return records["row"][exact], records["row"][normal]


def candidates(
    places: NDArray[np.void], first: int
) -> tuple[NDArray[np.void], NDArray[np.void], NDArray[np.int64]]:
    """Pair the ``first`` rows of each bucket with all later rows of the bucket.

    All pairs of a bucket would be as many as its rows squared. Most rows of a large bucket are near
    duplicates of its first rows, and removed before the rest is paired.

    Args:
        places: Records of the type :data:`PLACES`, in the order of their rows.
        first: Number of rows of a bucket that are paired with the later ones.

    Returns:
        Pairs, of the type :data:`PAIRS`; the records of buckets of which two or
        more rows are not paired yet, without those that are; and the rows among them that have an
        earlier row to be paired with.
    """
    places = places[np.argsort(places["key"], kind="stable")]
    keys, rows = places["key"], places["row"]
    begins = np.ones(len(keys), dtype=np.bool_)
    begins[1:] = keys[1:] != keys[:-1]
    starts = np.flatnonzero(begins)
    sizes = np.diff(starts, append=len(keys))
    shared = np.repeat(sizes > 1, sizes)
    rank = (np.arange(len(keys)) - np.repeat(starts, sizes))[shared]
    size, rows, places = np.repeat(sizes, sizes)[shared], rows[shared], places[shared]
    pairs = []
    for leader in range(min(first, int(size.max(initial=0)))):
        later = np.flatnonzero(rank > leader)
        found = np.empty(len(later), dtype=PAIRS)
        found["row"], found["later"] = rows[later - rank[later] + leader], rows[later]
        pairs.append(found)
    rest = (rank >= first) & (size > first + 1)
    blocked = np.unique(rows[rest & (rank > first)])
    return np.concatenate([np.empty(0, dtype=PAIRS), *pairs]), places[rest], blocked


def states(count: int, pairs: Iterable[Sequence[int]], blocked: NDArray[np.int64]) -> bytearray:
    """Decide which rows are kept: those without an earlier near duplicate that is kept.

    Args:
        count: Number of rows.
        pairs: Near duplicates, the lower row first, in ascending order of the higher row.
        blocked: Rows that have not been compared with all candidates.

    Returns:
        A state for each row: 0 removed, 1 kept, 2 unknown.

    Examples:
        >>> list(states(4, [(0, 1), (1, 2)], np.array([3])))
        [1, 0, 1, 2]
    """
    state = bytearray(b"\1") * count
    for row in blocked.tolist():
        state[row] = UNKNOWN
    for earlier, later in pairs:
        if state[earlier] == KEPT:
            state[later] = REMOVED
        elif state[earlier] == UNKNOWN and state[later] == KEPT:
            state[later] = UNKNOWN
    return state


def distinct_pairs(pairs: NDArray[np.void]) -> NDArray[np.void]:
    """Return the distinct pairs, in ascending order of the higher row, then of the lower."""
    pairs = pairs[np.lexsort((pairs["row"], pairs["later"]))]
    distinct = np.ones(len(pairs), dtype=np.bool_)
    distinct[1:] = pairs[1:] != pairs[:-1]
    return pairs[distinct]
