"""The split into training rows and held-out rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simcse_kit.data.corpus import Corpus
from simcse_kit.data.readers import Example
from simcse_kit.training.batching.subset import RowSubset, split_rows


class Numbers:
    """A corpus whose row n says n."""

    kind = "texts"

    def __init__(self, size: int):
        self.size = size

    def texts(self) -> list[tuple[str, ...]]:
        return [(str(index),) for index in range(self.size)]

    def __len__(self) -> int:
        return self.size

    def rows(self, indices: Any) -> list[Example]:
        assert all(0 <= index < self.size for index in indices)
        return [Example((str(index),)) for index in indices]


def corpus(size: int) -> Corpus:
    return cast(Corpus, Numbers(size))


def numbers(rows: list[Example]) -> list[int]:
    return [int(row.texts[0]) for row in rows]


@st.composite
def left_out(draw: st.DrawFn) -> tuple[int, list[int]]:
    size = draw(st.integers(1, 80))
    return size, sorted(draw(st.sets(st.integers(0, size - 1))))


@given(left_out())
def test_what_stays_is_the_complement_in_order(case: tuple[int, list[int]]) -> None:
    size, without = case
    subset = RowSubset(corpus(size), without)
    expected = [row for row in range(size) if row not in set(without)]
    assert len(subset) == len(expected)
    assert numbers(subset.__getitems__(range(len(subset)))) == expected
    assert numbers([subset[index] for index in range(len(subset))]) == expected


@given(st.integers(0, 200), st.integers(0, 50), st.integers(0, 5))
def test_split_divides_the_corpus(size: int, held_out: int, seed: int) -> None:
    subset, back = split_rows(corpus(size), held_out, seed)
    kept, gone = numbers(subset.__getitems__(range(len(subset)))), numbers(back)
    assert len(gone) == min(held_out, size // 10)
    assert sorted(kept + gone) == list(range(size))
    assert kept == sorted(kept)
    assert gone == sorted(gone)
    assert numbers(split_rows(corpus(size), held_out, seed)[1]) == gone


def test_another_seed_keeps_other_rows_back() -> None:
    assert numbers(split_rows(corpus(500), 9, 0)[1]) != numbers(split_rows(corpus(500), 9, 1)[1])


def test_the_index_tells_the_epoch() -> None:
    subset = RowSubset(corpus(6), [1, 4])
    rows = subset.__getitems__([0, 3, 4, 9, 11])
    assert numbers(rows) == [0, 5, 0, 2, 5]
    assert [row.epoch for row in rows] == [0, 0, 1, 2, 2]
    assert subset[9] == rows[3]
    assert subset[9].epoch == 2


def test_rows_keep_their_number_in_the_corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMCSE_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "rows.txt"
    file.write_text("".join(f"{number}\n" for number in range(50)), encoding="utf-8")
    subset, back = split_rows(Corpus.build(file), 5, 0)
    for row in [*subset.__getitems__(range(3 * len(subset))), *back]:
        assert row.row == int(row.texts[0])
    assert {row.epoch for row in back} == {0}
