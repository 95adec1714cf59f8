"""NT-Xent against a double loop, and in strips against the whole matrix."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from simcse_kit.errors import ConfigError
from simcse_kit.losses.contrastive_batch import ContrastiveBatch, Guide
from simcse_kit.losses.nt_xent import nt_xent
from tests.contrastive import info_nce_loss


def views(items: int, dim: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randn(2, items, dim, generator=generator, dtype=torch.float64)
    return first.requires_grad_(), second.requires_grad_()


def naive(first: Tensor, second: Tensor, tau: float, ids: list[int]) -> float:
    rows = [*first.tolist(), *second.tolist()]
    items = len(ids)

    def score(i: int, j: int) -> float:
        dot = sum(a * b for a, b in zip(rows[i], rows[j], strict=True))
        return math.exp(dot / math.hypot(*rows[i]) / math.hypot(*rows[j]) / tau)

    losses = []
    for i in range(2 * items):
        other = (i + items) % (2 * items)
        rivals = [j for j in range(2 * items) if ids[j % items] != ids[i % items]]
        own = score(i, other)
        losses.append(math.log1p(sum(score(i, j) for j in rivals) / own))
    return sum(losses) / len(losses)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 8),
    st.integers(1, 5),
    st.integers(0, 2**31),
    st.sampled_from([0.05, 0.3, 1.0]),
    st.sampled_from([None, 1, 3, 10**9]),
    st.integers(1, 17),
)
def test_loop_matrix_and_strips_agree(
    items: int, dim: int, seed: int, tau: float, texts: int | None, strip: int
) -> None:
    first, second = views(items, dim, seed)
    ids = None if texts is None else torch.arange(items) % texts
    temperature = torch.tensor(tau, dtype=torch.float64, requires_grad=True)
    batch = ContrastiveBatch(
        first,
        second,
        temperature=temperature,
        anchor_ids=ids,
        positive_ids=ids,
        allow_no_negatives=True,
    )
    loss = nt_xent(batch)
    distinct = list(range(items)) if ids is None else ids.tolist()
    assert loss.item() == pytest.approx(naive(first, second, tau, distinct), rel=1e-9, abs=1e-12)
    strips = nt_xent(batch, strip=strip)
    assert type(strips.grad_fn) is not type(loss.grad_fn)
    inputs = [first, second, temperature]
    torch.testing.assert_close(strips, loss, rtol=1e-10, atol=1e-10)
    both = [torch.autograd.grad(x, inputs, materialize_grads=True) for x in (strips, loss)]
    for a, b in zip(*both, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_order_of_the_views_does_not_matter() -> None:
    first, second = views(6, 4, 0)
    one, other = ContrastiveBatch(first, second), ContrastiveBatch(second, first)
    torch.testing.assert_close(nt_xent(one), nt_xent(other))


def test_it_is_info_nce_with_the_views_of_the_same_side_as_negatives() -> None:
    first, second = views(5, 4, 1)
    # alpha = 0 takes a view itself out of its denominator
    there = info_nce_loss(first, second, first.unsqueeze(1), hard_negative_alpha=0.0)
    back = info_nce_loss(second, first, second.unsqueeze(1), hard_negative_alpha=0.0)
    torch.testing.assert_close(nt_xent(ContrastiveBatch(first, second)), (there + back) / 2)


def test_large_batches_go_in_strips() -> None:
    first, second = views(260, 3, 2)
    ids = torch.arange(260) // 2
    batch = ContrastiveBatch(first, second, anchor_ids=ids, positive_ids=ids)
    strips, matrix = nt_xent(batch), nt_xent(batch, strip=0)
    assert type(strips.grad_fn) is not type(matrix.grad_fn)
    torch.testing.assert_close(strips, matrix, rtol=1e-10, atol=1e-10)


V, IDS = torch.ones(2, 3), torch.arange(2)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (
            ContrastiveBatch(V, V, anchor_ids=IDS),
            "nt_xent got ids of one view; give anchor_ids and",
        ),
        (ContrastiveBatch(V, V, positive_ids=IDS), "nt_xent got ids of one view; give anchor_ids"),
        (ContrastiveBatch(V, V, V.unsqueeze(1)), "nt_xent does not use hard_negatives; leave it"),
        (ContrastiveBatch(V, V, queue=V), "nt_xent does not use queue; leave it out or use info_n"),
        (ContrastiveBatch(V, V, guide=Guide(V, V)), "nt_xent does not use guide; leave it out or"),
    ],
)
def test_unused_inputs_are_refused(batch: ContrastiveBatch, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        nt_xent(batch)
    assert "\n" not in str(caught.value)


def test_one_item_is_allowed_on_request() -> None:
    batch = ContrastiveBatch(V[:1], V[:1], allow_no_negatives=True)
    assert nt_xent(batch).item() == 0.0
