"""The guide in the plain and in the tiled computation of InfoNCE."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from simcse_kit.errors import ConfigError
from simcse_kit.losses import info_nce as info_nce_module
from simcse_kit.losses.contrast import ContrastiveBatch
from simcse_kit.losses.false_negatives import Guide
from simcse_kit.losses.info_nce import info_nce
from simcse_kit.losses.logits import candidate_logits


def draw(rows: int, k: int, dim: int, seed: int) -> list[Tensor]:
    source = torch.Generator().manual_seed(seed)
    parts = [torch.randn(rows, dim, generator=source, dtype=torch.float64) for _ in range(2)]
    parts[1] += parts[0]
    if k:
        parts.append(torch.randn(rows, k, dim, generator=source, dtype=torch.float64))
    return parts


@pytest.mark.parametrize("k", [0, 2])
@pytest.mark.parametrize("hard", ["all", "masked", "unseen"])
@pytest.mark.parametrize("margin", [-0.3, 0.0, 0.4])
@pytest.mark.parametrize("strip", [1, 3, 16])
def test_strips_leave_out_what_the_matrix_does(
    k: int, hard: str, margin: float, strip: int
) -> None:
    parts = [part.requires_grad_() for part in draw(11, k, 4, seed=0)]
    guides = draw(11, k, 6, seed=1)[: 2 if hard == "unseen" else 3]
    options: dict[str, Any] = {"temperature": 0.2, "guide": Guide(*guides, margin=margin)}
    if k and hard == "masked":
        options["negative_mask"] = torch.arange(11 * k).view(11, k) % 3 > 0
    options["anchor_ids"] = options["positive_ids"] = torch.arange(11) % 9
    batch = ContrastiveBatch(*parts, **options)
    plain = info_nce_module._plain_terms(batch)
    tiled = info_nce_module._tiled_terms(batch, strip)
    for name in ("loss", "positive_cosine", "accuracy"):
        torch.testing.assert_close(getattr(tiled, name), getattr(plain, name))
    for got, expected in zip(
        torch.autograd.grad(tiled.loss, parts),
        torch.autograd.grad(plain.loss, parts),
        strict=True,
    ):
        torch.testing.assert_close(got, expected)


def test_which_candidates_go_by_hand() -> None:
    # The guide's cosines with anchor 0: positive 0.6, the other positive 0.8, negatives 0 and 1.
    anchors = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    positives = torch.tensor([[0.6, 0.8], [0.8, 0.6]])
    hard = torch.tensor([[[0.0, 1.0]], [[1.0, 0.0]]])
    blind = torch.eye(2)
    for margin, gone in [
        (0.0, {(0, 1), (0, 3), (1, 0), (1, 2)}),
        (-0.3, {(0, 3), (1, 2)}),
        (0.7, {(0, 1), (0, 2), (0, 3), (1, 0), (1, 2), (1, 3)}),
    ]:
        batch = ContrastiveBatch(
            blind, blind, torch.ones(2, 1, 2), guide=Guide(anchors, positives, hard, margin=margin)
        )
        left_out = (candidate_logits(batch) == -torch.inf).nonzero().tolist()
        assert {(i, j) for i, j in left_out} == gone


@pytest.mark.parametrize("k", [0, 1])
def test_a_guide_that_trusts_the_data_changes_nothing(k: int) -> None:
    parts = draw(6, k, 4, seed=2)
    guide = Guide(*draw(6, k, 3, seed=3), margin=-3.0)
    for symmetric in (False, True):
        plain = info_nce(*parts, symmetric=symmetric)
        assert info_nce(*parts, guide=guide, symmetric=symmetric).equal(plain)


def test_symmetric_asks_the_guide_from_the_other_side() -> None:
    parts, theirs = draw(6, 0, 4, seed=4), draw(6, 0, 4, seed=5)
    there = info_nce(*parts, guide=Guide(*theirs, margin=0.5))
    back = info_nce(*parts[::-1], guide=Guide(*theirs[::-1], margin=0.5))
    assert back != info_nce(*parts[::-1], guide=Guide(*theirs, margin=0.5))
    both = info_nce(*parts, guide=Guide(*theirs, margin=0.5), symmetric=True)
    assert both.item() == pytest.approx((there.item() + back.item()) / 2)


def test_no_gradient_flows_to_the_guide() -> None:
    parts = [part.requires_grad_() for part in draw(4, 0, 3, seed=6)]
    theirs = [part.requires_grad_() for part in draw(4, 0, 3, seed=7)]
    batch = ContrastiveBatch(*parts, guide=Guide(*theirs))
    for terms in (info_nce_module._plain_terms(batch), info_nce_module._tiled_terms(batch, 2)):
        found = torch.autograd.grad(terms.loss, [*parts, *theirs], allow_unused=True)
        assert [gradient is None for gradient in found] == [False, False, True, True]


@pytest.mark.parametrize(
    ("guide", "message"),
    [
        (Guide(torch.ones(3, 2), torch.ones(2, 2)), r"guide.anchors of shape \(3, 2\) does not"),
        (Guide(torch.ones(2, 2), torch.ones(3, 2)), r"guide.positives of shape \(3, 2\) does not"),
        (
            Guide(torch.ones(2, 2), torch.ones(2, 2), torch.ones(2, 1, 2)),
            r"guide.hard_negatives of shape \(2, 1, 2\) does not fit hard_negatives of shape None",
        ),
    ],
)
def test_a_guide_of_other_texts_is_refused(guide: Guide, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ContrastiveBatch(torch.ones(2, 4), torch.ones(2, 4), guide=guide)
