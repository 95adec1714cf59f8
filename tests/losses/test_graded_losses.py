"""Losses of graded pairs: degenerate batches, equal texts, accelerators, wrong shapes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from simcse_kit.errors import ConfigError
from simcse_kit.losses.angle import angle, angle_similarity
from simcse_kit.losses.cosent import cosent
from simcse_kit.losses.cosine_regression import cosine_regression

COSINES = torch.tensor([0.9, 0.2, 0.5, 0.7])
SCORES = torch.tensor([0.1, 1.0, 0.4, 0.4])


def slope(loss: Any, values: Tensor = COSINES, **options: Any) -> Tensor:
    leaf = values.clone().requires_grad_()
    (found,) = torch.autograd.grad(loss(leaf, SCORES, **options), leaf)
    return found


def test_equal_scores_have_no_loss_and_no_gradient() -> None:
    leaf = COSINES.clone().requires_grad_()
    loss = cosent(leaf, torch.ones(4))
    torch.autograd.backward(loss)
    assert loss.item() == 0
    assert leaf.grad is not None
    assert not leaf.grad.any()


@pytest.mark.parametrize("loss", [cosent, cosine_regression])
def test_a_pair_of_equal_texts_is_never_pushed_apart(loss: Any) -> None:
    assert slope(loss)[0] > 0
    slopes = slope(loss, equal=torch.tensor([True, False, False, False]))
    assert slopes[0] == 0
    assert slopes[3] > 0
    # The other pairs are not asked to exceed a pair of equal texts.
    assert slopes[1] < 0


def test_only_the_order_of_scores_counts() -> None:
    assert cosent(COSINES, SCORES).equal(cosent(COSINES, SCORES.exp() * 7))


def test_large_similarities_stay_finite() -> None:
    assert slope(cosent, COSINES * 1e4).isfinite().all()
    half = cosent(COSINES.bfloat16(), SCORES)
    assert half.dtype == torch.float32


def test_a_vector_of_zeros_has_no_gradient() -> None:
    first, second = torch.zeros(4, 3, requires_grad=True), torch.ones(4, 3)
    torch.autograd.backward(angle(first, second, SCORES))
    assert first.grad is not None
    assert not first.grad.any()


@pytest.mark.parametrize("loss", [cosent, cosine_regression])
def test_wrong_shapes_are_refused(loss: Any) -> None:
    with pytest.raises(ConfigError, match=r"must both have shape \(B,\)"):
        loss(COSINES, SCORES[:3])
    with pytest.raises(ConfigError, match=r"B of 1 or more"):
        loss(COSINES[:0], SCORES[:0])


def test_wrong_sides_and_temperatures_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"must both have shape \(B, d\)"):
        angle_similarity(torch.ones(2, 3), torch.ones(2, 4))
    with pytest.raises(ConfigError, match="temperature must be above 0"):
        cosent(COSINES, SCORES, temperature=0)
