"""Properties of encode and its batches, for any sentences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from simcse_kit.encoder.batch_plan import length_sorted_batches, pad_batch
from simcse_kit.encoder.encoder import SentenceEncoder

law = settings(max_examples=15, deadline=None)
words = st.sampled_from("a the cat dog sat ran mat . ? zebra".split())
sentence = st.one_of(st.lists(words, max_size=40).map(" ".join), st.text(max_size=12))
sentences = st.lists(sentence, max_size=9)


@pytest.fixture(scope="module")
def tiny(tiny_encoder_dir: Path) -> SentenceEncoder:
    encoder = SentenceEncoder.load(tiny_encoder_dir)
    with torch.no_grad():  # spread the vectors: the usual random start makes them nearly equal
        for parameter in encoder.backbone.parameters():
            if parameter.ndim == 2:
                parameter.mul_(8)
    return encoder


@law
@given(sentences, st.integers(1, 5) | st.none(), st.integers(1, 200), st.randoms())
def test_batches_and_order_do_not_matter(
    tiny: SentenceEncoder, texts: list[str], size: int | None, budget: int, random
) -> None:
    whole = tiny.encode(texts)
    assert whole.shape == (len(texts), 32)
    assert np.isfinite(whole).all()
    batched = tiny.encode(texts, batch_size=size, token_budget=budget)
    np.testing.assert_allclose(batched, whole, atol=1e-5)
    order = list(range(len(texts)))
    random.shuffle(order)
    shuffled = tiny.encode([texts[n] for n in order], token_budget=budget)
    np.testing.assert_allclose(shuffled, whole[order], atol=1e-5)
    twice = tiny.encode(texts + texts, batch_size=size)
    np.testing.assert_array_equal(twice[: len(texts)], twice[len(texts) :])


@law
@given(sentences, st.integers(3, 32))
def test_lengths(tiny: SentenceEncoder, texts: list[str], length: int) -> None:
    full, _ = tiny.tokenize(texts, max_length=64)
    rows, cut = tiny.tokenize(texts, max_length=length)
    assert all(len(row) <= length for row in rows)
    assert cut == sum(len(row) > length for row in full)
    for row, whole in zip(rows, full, strict=True):
        assert row[:-1] == whole[: len(row) - 1]
        assert row[-1] == whole[-1] == 3


@law
@given(sentences, sentences)
def test_similarity(tiny: SentenceEncoder, left: list[str], right: list[str]) -> None:
    matrix = tiny.similarity(left, right)
    assert matrix.shape == (len(left), len(right))
    assert (np.abs(matrix) <= 1).all()
    np.testing.assert_allclose(tiny.similarity(right, left), matrix.T, atol=1e-5)
    np.testing.assert_allclose(np.diag(tiny.similarity(left, left)), 1, atol=1e-5)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(1, 50), max_size=40),
    st.integers(1, 300),
    st.integers(1, 9) | st.none(),
)
def test_batches(lengths: list[int], budget: int, size: int | None) -> None:
    batches = list(length_sorted_batches(lengths, token_budget=budget, batch_size=size))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    flat = [lengths[row] for batch in batches for row in batch]
    assert flat == sorted(flat, reverse=True)
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= budget
        assert len(batch) <= (size or len(batch))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=9), min_size=1, max_size=9))
def test_padding(rows: list[list[int]]) -> None:
    ids, mask = pad_batch(rows, 55)
    assert [line[keep.bool()].tolist() for line, keep in zip(ids, mask, strict=True)] == rows
    assert (ids[mask == 0] == 55).all()
    assert (mask.diff(dim=1) <= 0).all()  # on the right
