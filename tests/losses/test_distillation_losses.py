"""Losses of distillation: equal texts, single rows, half precision, wrong shapes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from simcse_kit.errors import ConfigError
from simcse_kit.losses.distillation import relational_kl, target_distance, target_mse

VECTORS = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
TARGETS = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))


def test_targets_may_have_another_width_for_the_divergence_alone() -> None:
    wide = torch.cat([TARGETS, TARGETS], dim=1)
    expected = relational_kl(VECTORS, TARGETS, temperature=0.1)
    torch.testing.assert_close(relational_kl(VECTORS, wide, temperature=0.1), expected)
    for loss in (target_distance, target_mse):
        with pytest.raises(ConfigError, match=r"are \(5, 4\) and their targets \(5, 8\)"):
            loss(VECTORS, wide)


@pytest.mark.parametrize("ids", [None, torch.zeros(5, dtype=torch.int64)])
def test_a_row_without_others_has_no_loss_and_no_gradient(ids: Any) -> None:
    rows = slice(0, 1 if ids is None else 5)
    vectors = VECTORS[rows].clone().requires_grad_()
    loss = relational_kl(vectors, TARGETS[rows], temperature=0.05, text_ids=ids)
    torch.autograd.backward(loss)
    assert loss.item() == 0
    assert vectors.grad is not None
    assert not vectors.grad.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype: torch.dtype) -> None:
    for loss in (target_distance, target_mse):
        assert loss(VECTORS.to(dtype), TARGETS).dtype == torch.float32
    found = relational_kl(VECTORS.to(dtype), TARGETS, temperature=0.05)
    assert found.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = relational_kl(VECTORS.to(dtype), TARGETS, temperature=0.05)
    assert inside.equal(found)


def test_large_weights_and_small_temperatures_stay_finite() -> None:
    vectors = (VECTORS * 1e6).requires_grad_()
    torch.autograd.backward(relational_kl(vectors, TARGETS, temperature=1e-3))
    assert vectors.grad is not None
    assert vectors.grad.isfinite().all()


def test_wrong_rows_and_temperatures_are_refused() -> None:
    with pytest.raises(ConfigError, match="with at least one row"):
        target_distance(VECTORS[:0], TARGETS[:0])
    with pytest.raises(ConfigError, match=r"are \(5, 1\) and their targets \(3, 1\)"):
        relational_kl(VECTORS, TARGETS[:3], temperature=0.05)
    with pytest.raises(ConfigError, match="temperature must be above 0"):
        relational_kl(VECTORS, TARGETS, temperature=0.0)
