"""Examples to tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from simcse_kit.data.collate import Collator, CountingCollator
from simcse_kit.data.readers import Example

PAD, START, END = 0, 1, 2
LENGTH = 6


def tokenize(texts: Sequence[str]) -> tuple[list[list[int]], int]:
    """A letter a token between start and end, at most LENGTH tokens."""
    inner = [[3 + ord(letter) - ord("a") for letter in text] for text in texts]
    cut = sum(len(row) > LENGTH - 2 for row in inner)
    return [[START, *row[: LENGTH - 2], END] for row in inner], cut


TEXT = st.text("abc", min_size=1, max_size=8)
ROWS = st.lists(st.lists(TEXT, min_size=3, max_size=5), min_size=1, max_size=6)


@given(ROWS)
def test_every_view_of_every_row(rows: list[list[str]]) -> None:
    collator = Collator(tokenize, PAD, (0, 1, 2, 3, 4))
    batch = collator([Example(tuple(row)) for row in rows])
    assert batch["input_ids"].shape[:2] == (len(rows), 5)
    longest = 0
    for number, row in enumerate(rows):
        for view in range(5):
            text = row[view] if view < len(row) else ""
            expected = tokenize([text])[0][0]
            longest = max(longest, len(expected))
            ids = batch["input_ids"][number, view].tolist()
            mask = batch["attention_mask"][number, view].tolist()
            assert ids == expected + [PAD] * (len(ids) - len(expected))
            assert mask == [1] * len(expected) + [0] * (len(ids) - len(expected))
            assert bool(batch["view_mask"][number, view]) is (view < len(row))
    assert batch["input_ids"].shape[2] == longest
    ids, keys = batch["input_ids"].flatten(0, 1), batch["text_ids"].flatten()
    equal = (ids[:, None] == ids[None]).all(-1)
    assert torch.equal(keys[:, None] == keys[None], equal)
    assert {batch[key].dtype for key in ("input_ids", "attention_mask", "text_ids")} == {
        torch.int64
    }
    assert batch["view_mask"].dtype == torch.bool


def test_sentences_that_the_cut_makes_alike_are_alike() -> None:
    batch = Collator(tokenize, PAD, (0,))([Example(("aaaab",)), Example(("aaaac",))])
    assert batch["text_ids"][0] == batch["text_ids"][1]


def test_a_view_may_be_asked_for_twice() -> None:
    batch = Collator(tokenize, PAD, (0, 0))([Example(("ab",)), Example(("c",))])
    assert torch.equal(batch["input_ids"][:, 0], batch["input_ids"][:, 1])


def test_text_ids_are_fixed_numbers() -> None:
    # they must not change from one process to the next, as hashes of str do
    batch = Collator(tokenize, PAD, (0,))([Example(("ab",))])
    assert batch["text_ids"].item() == hash((START, 3, 4, END))


def test_counting_cut_sentences() -> None:
    collator = CountingCollator(Collator(tokenize, PAD, (0, 1)))
    counts = collator.counts
    assert counts.truncated is None
    long = Example(("abcabcabc",))
    collator([long, long])  # one sentence; the absent second views do not count
    assert (counts.sentences, counts.cut, counts.truncated) == (1, 1, 1.0)
    collator([Example(("a", "b")), Example(("a", "abcabc"))])
    assert (counts.sentences, counts.cut, counts.truncated) == (4, 2, 0.5)


def test_the_host_keeps_every_tensor_and_the_lengths() -> None:
    batch = Collator(tokenize, PAD, (0, 1))([Example(("ab", "c"), label=1.0), Example(("abc",))])
    tensors = {key: part for key, part in batch.items() if isinstance(part, torch.Tensor)}
    assert batch["lengths"].tolist() == [[4, 3], [5, 2]]
    assert batch["host"].keys() == tensors.keys() >= {"labels", "text_ids", "view_mask"}
    for key, values in batch["host"].items():
        assert torch.equal(torch.from_numpy(values), tensors[key]), key


def test_targets_are_those_of_the_rows_in_the_corpus() -> None:
    def targets(rows: Sequence[int]) -> NDArray[np.float32]:
        return np.array([[row, -row] for row in rows], dtype=np.float32)

    examples = [Example(("ab",), row=7), Example(("c",), row=3, epoch=2)]
    batch = Collator(tokenize, PAD, (0, 0), targets=targets)(examples)
    assert batch["targets"].tolist() == [[7, -7], [3, -3]]
    assert batch["targets"].dtype == torch.float32
    assert "targets" in batch["host"]
    assert "targets" not in Collator(tokenize, PAD, (0, 0))(examples)
