"""Groups of duplicates in one partition: the decisions are those of one pass over all rows."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simcse_kit.cluster.duplicate_groups import (
    DIGESTS,
    PAIRS,
    PLACES,
    REMOVED,
    UNKNOWN,
    candidates,
    distinct_pairs,
    equal_rows,
    parts_of,
    states,
)

numbers = st.integers(0, 3)


@given(st.lists(st.tuples(numbers, numbers), max_size=20))
@settings(max_examples=50)
def test_the_first_of_equal_rows_is_no_duplicate(spellings: list[tuple[int, int]]) -> None:
    """A text is a normal key and a spelling of it."""
    records = np.zeros(len(spellings), dtype=DIGESTS)
    records["row"] = np.arange(len(spellings))
    for row, (key, spelling) in enumerate(spellings):
        records["normal2"][row], records["exact"][row] = key, 10 * key + spelling
    exact, normal = set(), set()
    for row, (key, spelling) in enumerate(spellings):
        if (key, spelling) in spellings[:row]:
            exact.add(row)
        elif key in [each for each, _ in spellings[:row]]:
            normal.add(row)
    assert [set(each.tolist()) for each in equal_rows(records)] == [exact, normal]


rows_in_buckets = st.lists(st.lists(numbers, min_size=3, max_size=3), max_size=14)


@given(rows_in_buckets, st.sets(st.tuples(st.integers(0, 13), st.integers(0, 13))), st.data())
@settings(max_examples=150)
def test_rounds_of_pairs_decide_as_one_pass_over_the_rows(
    buckets: list[list[int]], alike: set[tuple[int, int]], data: st.DataObject
) -> None:
    """Each row has a bucket in each of three bands; rows that share one are compared."""
    count = len(buckets)
    kept: list[int] = []
    for row, own in enumerate(buckets):
        if not any(
            (other, row) in alike and any(map(int.__eq__, own, buckets[other])) for other in kept
        ):
            kept.append(row)

    pieces = []
    for band in range(3):
        places = np.zeros(count, dtype=PLACES)
        places["row"], places["key"] = np.arange(count), [own[band] for own in buckets]
        pieces += parts_of(places, "key", 2)
    first = data.draw(st.integers(1, 3))
    near = np.empty(0, dtype=PAIRS)
    state = bytearray(b"\1") * count
    while pieces:
        pieces = [
            piece[np.frombuffer(state, dtype=np.uint8)[piece["row"]] != REMOVED]
            if len(piece)
            else piece
            for piece in pieces
        ]
        found = [candidates(piece, first) for piece in pieces]
        similar = [
            np.array([pair for pair in pairs.tolist() if pair in alike], dtype=PAIRS)
            for pairs, _, _ in found
        ]
        near = distinct_pairs(np.concatenate([near, *similar]))
        state = states(count, near.tolist(), np.concatenate([rows for _, _, rows in found]))
        pieces = [rest for _, rest, _ in found if len(rest)]
    assert UNKNOWN not in state
    assert [row for row in range(count) if state[row]] == kept


def test_the_pairs_of_a_large_bucket_are_few_until_its_near_duplicates_are_removed() -> None:
    places = np.zeros(1000, dtype=PLACES)
    places["row"] = np.arange(1000)
    pairs, rest, blocked = candidates(places, 4)
    assert len(pairs) < 4 * 1000
    assert rest["row"].tolist() == list(range(4, 1000))
    assert blocked.tolist() == list(range(5, 1000))


def test_a_bucket_with_one_row_left_needs_no_further_round() -> None:
    places = np.zeros(4, dtype=PLACES)
    places["row"] = [2, 5, 7, 9]
    pairs, rest, blocked = candidates(places, 3)
    assert {tuple(pair) for pair in pairs.tolist()} == set(combinations([2, 5, 7, 9], 2))
    assert len(rest) == len(blocked) == 0


@pytest.mark.parametrize("parts", [2, 7])
def test_partitions_of_hashed_keys_have_even_sizes_and_keep_equal_keys_together(parts: int) -> None:
    places = np.zeros(20_000, dtype=PLACES)
    places["row"] = np.arange(20_000)
    places["key"] = np.random.default_rng(0).integers(0, 1 << 63, 20_000, dtype=np.uint64)
    places["key"][:1000] = places["key"][5000:6000]
    found = parts_of(places, "key", parts)
    assert len(found) == parts
    assert max(map(len, found)) < 1.1 * 20_000 / parts
    assert sorted(np.concatenate(found)["row"].tolist()) == list(range(20_000))
    for one, two in combinations(found, 2):
        assert not np.intersect1d(one["key"], two["key"]).size
