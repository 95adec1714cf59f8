"""Edge cases of the margin, decoupled and spread losses."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from simcse_kit.errors import ConfigError
from simcse_kit.losses.contrastive_batch import ContrastiveBatch
from simcse_kit.losses.decoupled import decoupled_info_nce
from simcse_kit.losses.margin import distance_of, ranking, simple, triplet
from simcse_kit.losses.matryoshka import check_prefixes, prefix_losses
from simcse_kit.losses.pair_margin import margin_contrastive, pair_distance
from simcse_kit.metrics.geometry import align_uniform

Loss = Callable[[ContrastiveBatch], Tensor]
LOSSES: dict[str, Loss] = {
    "hard": lambda batch: triplet(batch, margin=0.5),
    "euclidean": lambda batch: triplet(batch, margin=0.5, distance="euclidean"),
    "semi-hard": lambda batch: triplet(batch, margin=0.5, mining="semi-hard"),
    "all": lambda batch: triplet(batch, margin=0.5, mining="all"),
    "ranking": lambda batch: ranking(batch, margin=0.5),
    "simple": simple,
    "weighted": lambda batch: simple(batch, weight=0.3),
    "decoupled": decoupled_info_nce,
}


def vectors(rows: int, k: int = 0, dtype: torch.dtype = torch.float64, seed: int = 0) -> list[Any]:
    draw = torch.Generator().manual_seed(seed)
    parts = [torch.randn(rows, 4, generator=draw, dtype=torch.float64) for _ in range(2)]
    if k:
        parts.append(torch.randn(rows, k, 4, generator=draw, dtype=torch.float64))
    return [part.to(dtype).requires_grad_() for part in parts]


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_gradcheck(loss: Loss) -> None:
    mask = torch.tensor([[True, False], [True, True], [False, False]])

    def of(*parts: Tensor) -> Tensor:
        return loss(ContrastiveBatch(*parts, negative_mask=mask))

    assert torch.autograd.gradcheck(of, vectors(3, 2, seed=4))


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_what_is_the_same_text_is_no_negative(loss: Loss) -> None:
    anchors, positives, negatives = vectors(3, 1)
    # Row 1 has the text of anchor 0 as its positive, and that of positive 0 as its negative.
    ids = {
        "anchor_ids": torch.tensor([1, 2, 3]),
        "positive_ids": torch.tensor([4, 1, 6]),
        "negative_ids": torch.tensor([[7], [4], [9]]),
    }
    batch = ContrastiveBatch(anchors, positives, negatives, **ids)
    there = torch.autograd.grad(loss(batch), (positives, negatives))
    moved = positives.detach().clone(), negatives.detach().clone()
    moved[0][1], moved[1][1] = -positives.detach()[1], -negatives.detach()[1]
    alone = slice(0, 1)
    # Only anchor 0 is checked: the content of row 1 does not matter to it.
    before, after = (
        loss_of_first(loss, anchors.detach(), p, n, ids, alone)
        for p, n in ((positives.detach(), negatives.detach()), moved)
    )
    assert before.item() == pytest.approx(after.item(), rel=1e-12)
    assert all(gradient.isfinite().all() for gradient in there)


def loss_of_first(
    loss: Loss, anchors: Tensor, positives: Tensor, negatives: Tensor, ids: Any, first: slice
) -> Tensor:
    """The part of anchor 0: one row, with the texts of all others as its hard negatives."""
    hard = torch.cat([positives[1:], negatives.flatten(0, 1)]).unsqueeze(0)
    hard_ids = torch.cat([ids["positive_ids"][1:], ids["negative_ids"].flatten()]).unsqueeze(0)
    return loss(
        ContrastiveBatch(
            anchors[first],
            positives[first],
            hard,
            anchor_ids=ids["anchor_ids"][first],
            positive_ids=ids["positive_ids"][first],
            negative_ids=hard_ids,
        )
    )


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_an_anchor_without_negatives_adds_nothing(loss: Loss) -> None:
    parts = vectors(3)
    same = torch.zeros(3, dtype=torch.int64)
    value = loss(ContrastiveBatch(*parts, anchor_ids=same, positive_ids=same))
    assert value.item() == 0
    for gradient in torch.autograd.grad(value, parts):
        assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_is_widened(loss: Loss, dtype: torch.dtype) -> None:
    parts = vectors(5, 1, dtype)
    value = loss(ContrastiveBatch(*parts))
    assert value.dtype == torch.float32
    wide = loss(ContrastiveBatch(*(part.detach().double() for part in parts)))
    assert value.item() == pytest.approx(wide.item(), rel=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert loss(ContrastiveBatch(*parts)).equal(value)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_what_is_no_number_reaches_the_loss(loss: Loss) -> None:
    parts = vectors(4, dtype=torch.float32)
    parts[0].data[1, 2] = torch.nan
    assert loss(ContrastiveBatch(*parts)).isnan()


def test_what_is_no_number_is_no_distance_of_zero() -> None:
    pairs = torch.ones(2, 3)
    pairs[1, 0] = torch.nan
    assert pair_distance(pairs, pairs).isnan().tolist() == [False, True]


@pytest.mark.parametrize("distance", ["cosine", "squared", "euclidean"])
def test_twins_have_finite_gradients(distance: Any) -> None:
    same = torch.ones(3, 4, requires_grad=True)
    batch = ContrastiveBatch(same, same)
    loss = triplet(batch, margin=0.5, distance=distance)
    assert loss.item() == pytest.approx(0.5)
    (gradient,) = torch.autograd.grad(loss, same)
    assert gradient.isfinite().all()


def test_distances_are_those_of_unit_vectors() -> None:
    cosines = torch.tensor([1.0, 0.0, -1.0])
    assert distance_of(cosines, "cosine").tolist() == [0, 1, 2]
    assert distance_of(cosines, "squared").tolist() == [0, 2, 4]
    assert distance_of(cosines, "euclidean").tolist() == pytest.approx([0, math.sqrt(2), 2])


def test_pairs_that_are_equal_have_finite_gradients() -> None:
    first, second = torch.ones(2, 3, requires_grad=True), torch.ones(2, 3)
    for metric in ("euclidean", "cosine"):
        distances = pair_distance(first, second, metric)  # type: ignore[arg-type]
        loss = margin_contrastive(distances, torch.tensor([0, 1]))
        assert loss.item() == pytest.approx(0.5)
        (gradient,) = torch.autograd.grad(loss, first)
        assert gradient.isfinite().all()


def test_autocast_does_not_round_alignment_and_uniformity() -> None:
    parts = [part.detach().float() for part in vectors(6)]
    outside = align_uniform(*parts)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = align_uniform(*parts)
    assert inside == outside


PAIR = ContrastiveBatch(torch.ones(2, 3), torch.ones(2, 3))
ONE, TWO = torch.ones(1), torch.ones(2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: triplet(PAIR, margin=0), "margin must be above 0, got 0"),
        (lambda: triplet(PAIR, margin=math.nan), "margin must be above 0, got nan"),
        (lambda: triplet(PAIR, mining="given"), "needs hard negatives and the data has none"),
        (lambda: triplet(PAIR, mining="soft"), "mining is 'soft'; use 'given'"),  # type: ignore[arg-type]
        (lambda: triplet(PAIR, distance="l1"), "distance is 'l1'; use 'cosine'"),  # type: ignore[arg-type]
        (lambda: ranking(PAIR, margin=-1), "margin must be above 0, got -1"),
        (lambda: simple(PAIR, weight=-1), "weight must be 0 or more, got -1"),
        (lambda: margin_contrastive(ONE, TWO), r"shape \(B,\) .* got \(1,\) and \(2,\)"),
        (lambda: margin_contrastive(ONE, ONE, margin=0), "margin must be above 0"),
        (lambda: pair_distance(ONE, ONE), r"shape \(B, d\), got \(1,\) and \(1,\)"),
        (lambda: pair_distance(TWO[None], TWO[None], "l1"), "metric is 'l1'"),  # type: ignore[arg-type]
        (lambda: align_uniform(TWO[None], TWO[None]), "at least 2 rows"),
        (lambda: align_uniform(PAIR.anchors, PAIR.anchors, weight=0), "weight is 0; give a number"),
        (lambda: check_prefixes([]), r"matryoshka is \[\]; give different numbers"),
        (lambda: check_prefixes([2, 2]), r"matryoshka is \[2, 2\]; give different numbers"),
        (lambda: check_prefixes([0, 2]), r"matryoshka is \[0, 2\]; give different numbers"),
        (lambda: check_prefixes([2, 9], width=8), r"\[2, 9\] but the embeddings have 8 dim"),
        (lambda: check_prefixes([2, 4], [1.0]), "2 numbers of dimensions and 1 weights"),
        (lambda: check_prefixes([2], [0.0]), r"weights are \[0.0\]; each must be above 0"),
        (lambda: prefix_losses(torch.sum, PAIR.anchors, [4]), r"\[4\] but the embeddings have 3"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
