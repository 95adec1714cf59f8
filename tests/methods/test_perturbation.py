"""Augmentations of tokens and input embeddings."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from simcse_kit.methods.common.perturbation import (
    add_noise,
    cut_elements,
    cut_features,
    cut_tokens,
    shuffle_tokens,
)

FIRST, LAST, PAD = 2, 3, 0


def rows(lengths: list[int]) -> tuple[Tensor, Tensor]:
    """[CLS] 4 5 6 … [SEP], all words different."""
    longest = max(lengths)
    ids = torch.zeros(len(lengths), longest, dtype=torch.int64)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.arange(3, 3 + length)
        ids[row, 0], ids[row, length - 1] = FIRST, LAST
    mask = (torch.arange(longest) < torch.tensor(lengths)[:, None]).long()
    return ids, mask


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(2, 9), min_size=1, max_size=5), st.integers(0, 2**31))
def test_shuffling_keeps_words_specials_and_padding(lengths: list[int], seed: int) -> None:
    ids, mask = rows(lengths)
    before = ids.clone()
    torch.manual_seed(seed)
    shuffled = shuffle_tokens(ids, mask, [PAD, FIRST, LAST])
    assert ids.equal(before)
    assert shuffled.sort(dim=1).values.equal(ids.sort(dim=1).values)
    fixed = (mask == 0) | torch.isin(ids, torch.tensor([FIRST, LAST]))
    assert shuffled[fixed].equal(ids[fixed])


def test_every_order_is_as_likely() -> None:
    ids, mask = rows([5])
    torch.manual_seed(0)
    shuffled = shuffle_tokens(ids.repeat(6000, 1), mask.repeat(6000, 1), [PAD, FIRST, LAST])
    _, counts = shuffled.unique(dim=0, return_counts=True)
    assert len(counts) == 6
    assert counts.min() > 850


@pytest.mark.parametrize("rate", [0.1, 0.15, 0.5])
def test_cutoffs_take_what_they_say(rate: float) -> None:
    torch.manual_seed(0)
    states = torch.ones(400, 9, 12)
    by_token = cut_tokens(states, rate) == 0
    assert (by_token.all(dim=2) == by_token.any(dim=2)).all()
    assert (by_token.all(dim=2).sum(dim=1) == int(9 * rate)).all()
    by_feature = cut_features(states, rate) == 0
    assert (by_feature.all(dim=1) == by_feature.any(dim=1)).all()
    assert (by_feature.all(dim=1).sum(dim=1) == int(12 * rate)).all()
    single = cut_elements(states, rate) == 0
    assert (single.flatten(1).sum(dim=1) == int(9 * 12 * rate)).all()
    for cells in (by_feature.all(dim=1), single.flatten(1)):
        # each row its own, and each place as likely
        assert len(cells.unique(dim=0)) > 5
        assert (cells.float().mean(dim=0) > 0).all()


def test_noise_has_its_deviation() -> None:
    torch.manual_seed(0)
    noise = add_noise(torch.zeros(100, 10, 20), 0.3)
    assert noise.mean().abs() < 0.01
    assert noise.std().item() == pytest.approx(0.3, rel=0.02)


@pytest.mark.parametrize("change", [cut_tokens, cut_features, cut_elements, add_noise])
def test_what_is_left_gets_its_gradient(change: Callable[[Tensor, float], Tensor]) -> None:
    states = torch.ones(3, 10, 4, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(0)
    changed = change(states, 0.5)
    changed.sum().backward()
    expected = torch.ones_like(states) if change is add_noise else changed.detach()
    assert states.grad is not None
    torch.testing.assert_close(states.grad, expected)
