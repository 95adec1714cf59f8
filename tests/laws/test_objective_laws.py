"""Properties of every objective, for any batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from simcse_kit.losses.contrastive_batch import ContrastiveBatch, Guide
from simcse_kit.losses.decoupled import decoupled_info_nce
from simcse_kit.losses.info_nce import info_nce
from simcse_kit.losses.margin import ranking, simple, triplet
from simcse_kit.losses.pair_margin import margin_contrastive, pair_distance

law = settings(max_examples=15, deadline=None)
Loss = Callable[[ContrastiveBatch], Tensor]
LOSSES: dict[str, Loss] = {
    "info_nce": lambda batch: info_nce(batch).loss,
    "hard": lambda batch: triplet(batch, margin=0.4),
    "semi-hard": lambda batch: triplet(batch, margin=0.4, mining="semi-hard"),
    "all": lambda batch: triplet(batch, margin=0.4, mining="all", distance="euclidean"),
    "given": lambda batch: triplet(batch, margin=0.4, mining="given"),
    "ranking": lambda batch: ranking(batch, margin=0.4),
    "simple": simple,
    "weighted": lambda batch: simple(batch, weight=0.3),
    "decoupled": decoupled_info_nce,
}
each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def draw(seed: int, rows: int, k: int, dim: int) -> ContrastiveBatch:
    """A random batch in float64, with ids in which texts repeat, a ragged mask and a guide."""
    source = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=source, dtype=torch.float64)

    def whole(high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=source)

    return ContrastiveBatch(
        normal(rows, dim),
        normal(rows, dim),
        normal(rows, k, dim),
        temperature=0.2,
        negative_mask=whole(4, rows, k) > 0,
        anchor_ids=whole(8, rows),
        positive_ids=whole(8, rows),
        negative_ids=whole(8, rows, k),
        guide=Guide(normal(rows, 3), normal(rows, 3), normal(rows, k, 3), margin=-0.5),
    )


batches = st.builds(
    draw,
    seed=st.integers(0, 2**31),
    rows=st.integers(2, 6),
    k=st.integers(1, 3),
    dim=st.integers(2, 5),
)


def mapped(batch: ContrastiveBatch, change: Callable[[Tensor], Tensor]) -> ContrastiveBatch:
    assert batch.hard_negatives is not None
    parts = batch.anchors, batch.positives, batch.hard_negatives
    anchors, positives, hard = map(change, parts)
    return replace(batch, anchors=anchors, positives=positives, hard_negatives=hard)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


@each_loss
@law
@given(batch=batches)
def test_order_of_the_batch_does_not_matter(loss: Loss, batch: ContrastiveBatch) -> None:
    order = torch.arange(batch.rows).roll(1)
    guide = batch.guide
    assert guide is not None
    assert guide.hard_negatives is not None
    moved = {n: x[order] for n, x in vars(batch).items() if isinstance(x, Tensor)}
    theirs = Guide(
        guide.anchors[order], guide.positives[order], guide.hard_negatives[order], guide.margin
    )
    close(loss(replace(batch, guide=theirs, **moved)), loss(batch))


@each_loss
@law
@given(batch=batches, scale=st.sampled_from([1e-3, 7.0, 1e4]))
def test_length_of_the_vectors_does_not_matter(
    loss: Loss, batch: ContrastiveBatch, scale: float
) -> None:
    close(loss(mapped(batch, lambda x: x * scale)), loss(batch))


@each_loss
@law
@given(batch=batches)
def test_a_rotation_does_not_matter(loss: Loss, batch: ContrastiveBatch) -> None:
    dim = batch.anchors.shape[1]
    turn, _ = torch.linalg.qr(torch.arange(dim * dim, dtype=torch.float64).cos().view(dim, dim))
    close(loss(mapped(batch, lambda x: x @ turn)), loss(batch))


@each_loss
@law
@given(batch=batches)
def test_what_is_absent_does_not_matter(loss: Loss, batch: ContrastiveBatch) -> None:
    assert batch.hard_negatives is not None
    assert batch.negative_mask is not None
    absent = ~batch.negative_mask.unsqueeze(2)
    hard = torch.where(absent, -3.0, batch.hard_negatives)
    close(loss(replace(batch, hard_negatives=hard)), loss(batch))


@each_loss
@law
@given(batch=batches)
def test_a_guide_only_takes_out(loss: Loss, batch: ContrastiveBatch) -> None:
    """A guide that rejects everything leaves nothing to learn, one that rejects nothing all."""
    guide = batch.guide
    assert guide is not None
    none = replace(batch, guide=replace(guide, margin=-3.0))
    close(loss(none), loss(replace(batch, guide=None)))
    assert loss(replace(batch, guide=replace(guide, margin=3.0))).item() == 0


@law
@given(batch=batches)
def test_harder_triplets_cost_more(batch: ContrastiveBatch) -> None:
    hard = triplet(batch, margin=0.4)
    assert triplet(batch, margin=0.4, mining="semi-hard") <= hard + 1e-12
    assert ranking(batch, margin=0.4) <= triplet(batch, margin=0.4, distance="cosine") + 1e-12


@law
@given(batch=batches)
def test_the_positive_in_the_sum_is_all_that_dcl_leaves_out(batch: ContrastiveBatch) -> None:
    """softplus of the decoupled term of an anchor is its InfoNCE term."""
    terms = [replace(one, allow_no_negatives=True) for one in anchors_alone(batch)]
    for one in terms:
        decoupled = decoupled_info_nce(one)
        if decoupled != 0:
            close(torch.nn.functional.softplus(decoupled), info_nce(one).loss)


def anchors_alone(batch: ContrastiveBatch) -> list[ContrastiveBatch]:
    """Each anchor as a batch of one, with the others' positives as its hard negatives."""
    found = []
    for row in range(batch.rows):
        others = torch.arange(batch.rows) != row
        found.append(
            ContrastiveBatch(
                batch.anchors[[row]],
                batch.positives[[row]],
                batch.positives[others].unsqueeze(0),
                temperature=0.2,
            )
        )
    return found


@law
@given(batch=batches, squared=st.booleans())
def test_labelled_pairs_are_symmetric(batch: ContrastiveBatch, squared: bool) -> None:
    labels = torch.arange(batch.rows) % 2
    one, other = (
        margin_contrastive(pair_distance(a, b), labels, squared=squared)
        for a, b in ((batch.anchors, batch.positives), (batch.positives * 3, batch.anchors))
    )
    close(one, other)
