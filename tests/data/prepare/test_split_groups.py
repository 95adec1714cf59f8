"""Groups of rows that share a key, compared with a slow search over the rows."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from simcse_kit.data.prepare.split import Keys, components, rows_of


def slow(rows: list[list[int]]) -> list[int]:
    groups = list(range(len(rows)))
    while True:
        before = list(groups)
        for one, texts in enumerate(rows):
            for other, others in enumerate(rows):
                if set(texts) & set(others):
                    groups[one] = groups[other] = min(groups[one], groups[other])
        if groups == before:
            return groups


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=3), min_size=1, max_size=14))
def test_groups_are_the_connected_rows(rows: list[list[int]]) -> None:
    keys = np.array([key for row in rows for key in row], dtype=np.uint64)
    counts = np.array([len(row) for row in rows], dtype=np.int32)
    assert components(keys, rows_of(counts), len(rows)).tolist() == slow(rows)


def test_case_and_punctuation_do_not_count() -> None:
    keys = Keys()
    for row in (["A cat.", "x"], ["a  cat", "y"], ["a cats"]):
        keys.add(row)
    assert keys.counts.tolist() == [2, 2, 1]
    groups = components(keys.digests[:, 0].astype(np.uint64), rows_of(keys.counts), 3)
    assert groups.tolist() == [0, 0, 2]
