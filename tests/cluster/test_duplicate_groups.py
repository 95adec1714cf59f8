"""Blocks of rows, and groups of duplicates in one partition: decisions as in one pass over all."""

from __future__ import annotations

import random
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simcse_kit.cluster.dedupe import Bounds, row_blocks
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


def test_a_block_has_a_bounded_number_of_rows_and_of_characters() -> None:
    rows = ["aa", "b", "c", "dddddd", "e", "f", "g", "h"]
    bounds = Bounds(block_rows=3, block_characters=4)
    expected = [(0, ["aa", "b", "c"]), (3, ["dddddd"]), (4, ["e", "f", "g"]), (7, ["h"])]
    assert list(row_blocks(rows, len, bounds)) == expected


@given(st.lists(st.tuples(numbers, numbers), max_size=20))
@settings(max_examples=30)
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


@pytest.mark.parametrize("first", [1, 2, 3])
def test_rounds_of_pairs_decide_as_one_pass_over_the_rows(first: int) -> None:
    """Each row has a bucket in each of two bands; rows that share one are compared."""
    rng = random.Random(first)
    for _ in range(60):
        count = rng.randint(0, 24)
        buckets = [[rng.randrange(2), rng.randrange(8)] for _ in range(count)]
        share = rng.random() / 2
        alike = {pair for pair in combinations(range(count), 2) if rng.random() < share}
        assert kept_by_rounds(buckets, alike, first) == kept_in_one_pass(buckets, alike)


def kept_in_one_pass(buckets: list[list[int]], alike: set[tuple[int, int]]) -> list[int]:
    kept: list[int] = []
    for row, own in enumerate(buckets):
        near = (other for other in kept if any(map(int.__eq__, own, buckets[other])))
        if not any((other, row) in alike for other in near):
            kept.append(row)
    return kept


def kept_by_rounds(buckets: list[list[int]], alike: set[tuple[int, int]], first: int) -> list[int]:
    count = len(buckets)
    pieces = []
    for band in range(2):
        places = np.zeros(count, dtype=PLACES)
        places["row"], places["key"] = np.arange(count), [own[band] for own in buckets]
        pieces += parts_of(places, "key", 2)
    near = np.empty(0, dtype=PAIRS)
    state = np.ones(count, dtype=np.uint8)
    while pieces:
        left = [piece[state[piece["row"]] != REMOVED] for piece in pieces]
        found = [candidates(piece, first) for piece in left]
        similar = [
            np.array([pair for pair in pairs.tolist() if pair in alike], dtype=PAIRS)
            for pairs, _, _ in found
        ]
        near = distinct_pairs(np.concatenate([near, *similar]))
        blocked = np.concatenate([rows for _, _, rows in found])
        state = np.frombuffer(states(count, near.tolist(), blocked), dtype=np.uint8)
        pieces = [rest for _, rest, _ in found if len(rest)]
    assert UNKNOWN not in state
    return np.flatnonzero(state).tolist()


def test_the_pairs_of_a_large_bucket_are_few_until_its_near_duplicates_are_removed() -> None:
    places = np.zeros(1000, dtype=PLACES)
    places["row"] = np.arange(1000)
    pairs, rest, blocked = candidates(places, 4)
    assert len(pairs) < 4 * 1000
    assert rest["row"].tolist() == list(range(4, 1000))
    assert blocked.tolist() == list(range(5, 1000))


def test_a_row_is_unknown_as_long_as_a_near_row_before_it_is() -> None:
    chain = [(0, 1), (1, 2)]
    assert list(states(3, chain, np.array([0]))) == [UNKNOWN] * 3
    # Row 4 is kept, so its near duplicate is removed, whatever the state of row 0.
    assert states(6, [*chain, (0, 5), (4, 5)], np.array([0]))[5] == REMOVED
    assert states(6, [(3, 5), (4, 5)], np.array([4]))[5] == REMOVED
    assert list(states(3, chain, np.array([], dtype=np.int64))) == [1, REMOVED, 1]


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
