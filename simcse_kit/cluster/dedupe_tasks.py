"""Tasks of the removal of duplicates: each handles one block or one partition."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from simcse_kit.cluster.duplicate_groups import (
    DIGESTS,
    PLACES,
    REMOVED,
    candidates,
    distinct_pairs,
    equal_rows,
    not_first,
    parts_of,
)
from simcse_kit.data.prepare.dedupe import Level, digest
from simcse_kit.data.prepare.minhash import BATCH, BandKeys, alike
from simcse_kit.data.prepare.normalize import normal_key

__all__ = ["digest_block", "duplicates_of", "pairs_in", "sign_block", "similar"]

_BAND = np.uint64(0x9E3779B97F4A7C15)

TextBlock = tuple[int, int, Any]
"""Number of the first row, number of rows, and a reference to their normal keys."""


def digest_block(
    first: int, rows: Sequence[tuple[str, ...]], level: Level
) -> tuple[NDArray[np.void], tuple[NDArray[np.int64], int], pa.Array | None]:
    """Compute the digests of a block.

    Returns:
        Digests of type :data:`DIGESTS`, without rows that repeat an earlier one of the block, so
        that a text of many rows has few digests; these rows, and the number of characters of all
        normal keys; and the normal keys, if the level is ``near``.
    """
    keys = rows if level == "exact" else [tuple(map(normal_key, texts)) for texts in rows]
    records = np.empty(len(rows), dtype=DIGESTS)
    records["row"] = np.arange(first, first + len(rows))
    for name, compared in (("exact", rows), ("normal", keys)):
        halves = np.frombuffer(b"".join(map(digest, compared)), dtype="<u8").reshape(-1, 2)
        records[name], records[f"{name}2"] = halves.T
    repeated = not_first(records["exact"], records["exact2"])
    length = sum(len(text) for texts in keys for text in texts)
    stored = pa.array(keys, pa.list_(pa.large_string())) if level == "near" else None
    return records[~repeated], (records["row"][repeated], length), stored


def duplicates_of(*pieces: NDArray[np.void]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the duplicates in a partition, as :func:`equal_rows`."""
    return equal_rows(np.concatenate(pieces))


def sign_block(
    keys: pa.Array, first: int, kept: NDArray[np.bool_], threshold: float, parts: int
) -> list[NDArray[np.void]]:
    """Place the kept rows of a block in the buckets of all bands, in ``parts`` partitions."""
    band_keys = BandKeys(threshold)
    places = np.flatnonzero(kept)
    records = np.empty((band_keys.bands, len(places)), dtype=PLACES)
    records["row"] = first + places
    for start in range(0, len(places), BATCH):
        some = slice(start, start + BATCH)
        texts = keys.take(pa.array(places[some])).to_pylist()
        records["key"][:, some] = band_keys.of(texts).T
    # Equal keys of different bands are different buckets.
    records["key"] += np.arange(band_keys.bands, dtype=np.uint64)[:, None] * _BAND
    return parts_of(records.ravel(), "key", parts)


def pairs_in(
    first: int, state: bytearray | None, *pieces: NDArray[np.void]
) -> tuple[NDArray[np.void], NDArray[np.void], tuple[int, NDArray[np.int64], int]]:
    """Pair the rows of the buckets of a partition that are not removed, as :func:`candidates`.

    Returns:
        Pairs; records that are not paired yet; and the number of the pairs, the rows that have an
        earlier row to be paired with, and the number of records that are not paired.
    """
    places = np.concatenate(pieces)
    if state is not None:
        places = places[np.frombuffer(state, dtype=np.uint8)[places["row"]] != REMOVED]
    pairs, rest, blocked = candidates(places, first)
    return pairs, rest, (len(pairs), blocked, len(rest))


def similar(
    blocks: Sequence[TextBlock], threshold: float, most: int, *pieces: NDArray[np.void]
) -> NDArray[np.void]:
    """Find the pairs of a partition whose texts are near duplicates, ``most`` at a time."""
    pairs = distinct_pairs(np.concatenate(pieces))
    near = np.empty(len(pairs), dtype=np.bool_)
    for start in range(0, len(pairs), most):
        some = pairs[start : start + most]
        texts = _texts_of(blocks, np.union1d(some["row"], some["later"]))
        near[start : start + most] = [
            alike(texts[later], texts[row], threshold) for row, later in some.tolist()
        ]
    return pairs[near]


def _texts_of(blocks: Sequence[TextBlock], rows: NDArray[np.int64]) -> dict[int, list[str]]:
    """Return the normal keys of rows, which are sorted; one block is fetched at a time."""
    ray = import_module("ray")
    texts: dict[int, list[str]] = {}
    for first, count, keys in blocks:
        low, high = np.searchsorted(rows, [first, first + count])
        if low < high:
            own = rows[low:high]
            found = ray.get(keys).take(pa.array(own - first)).to_pylist()
            texts.update(zip(own.tolist(), found, strict=True))
    return texts
