"""Losses of ESimCSE and DiffCSE against slow NumPy transcriptions of their papers' formulas."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from simcse_kit.errors import ConfigError
from simcse_kit.losses.info_nce import info_nce
from simcse_kit.losses.info_nce_queue import queued_info_nce
from simcse_kit.losses.replaced_token import replaced_token_loss

Array = NDArray[np.float64]


def cosine(a: Array, b: Array) -> float:
    return float(a @ b / math.sqrt((a @ a) * (b @ b)))


def paper_queue_loss(
    h: Array, plus: Array, queue: Array, tau: float, ids: tuple[list[int], ...] | None
) -> float:
    """Section 3.2 of arXiv 2109.04380, one anchor and one candidate at a time."""
    total = 0.0
    for i in range(len(h)):
        taboo = set() if ids is None else {ids[0][i], ids[1][i]}
        numerator = math.exp(cosine(h[i], plus[i]) / tau)
        denominator = numerator
        for j in range(len(h)):
            if j != i and (ids is None or ids[1][j] not in taboo):
                denominator += math.exp(cosine(h[i], plus[j]) / tau)
        for q in range(len(queue)):
            if ids is None or ids[2][q] not in taboo:
                denominator += math.exp(cosine(h[i], queue[q]) / tau)
        total -= math.log(numerator / denominator)
    return total / len(h)


@pytest.mark.parametrize(
    ("rows", "size", "tau", "with_ids"),
    list(itertools.product([1, 2, 5], [0, 1, 4, 5, 13], [0.05, 0.3, 1.0], [False, True])),
)
def test_queue_loss_follows_the_paper(rows: int, size: int, tau: float, with_ids: bool) -> None:
    generator = torch.Generator().manual_seed(rows * 100 + size)
    vectors = [
        torch.randn(n, 4, generator=generator, dtype=torch.float64) for n in (rows, rows, size)
    ]
    ids = [torch.randint(6, (n,), generator=generator) for n in (rows, rows, size)]
    keywords: dict[str, Any] = {"temperature": tau}
    if with_ids:
        keywords |= {"anchor_ids": ids[0], "positive_ids": ids[1], "queue_ids": ids[2]}
    if rows == 1 and size == 0:
        with pytest.raises(ConfigError, match="a batch of one sentence has no negatives"):
            queued_info_nce(vectors[0], vectors[1], vectors[2], **keywords)
        return
    ours = queued_info_nce(vectors[0], vectors[1], vectors[2], **keywords).loss
    theirs = paper_queue_loss(
        *(v.numpy() for v in vectors),
        tau,
        tuple(i.tolist() for i in ids) if with_ids else None,
    )
    assert ours.item() == pytest.approx(theirs, rel=1e-9, abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(1, 9), st.randoms(use_true_random=False))
def test_the_order_of_the_queue_does_not_matter(rows: int, size: int, random: Any) -> None:
    generator = torch.Generator().manual_seed(random.randrange(1000))
    h, plus, queue = (
        torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (rows, rows, size)
    )
    order = torch.randperm(size, generator=generator)
    one, other = (queued_info_nce(h, plus, keys).loss for keys in (queue, queue[order]))
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    if rows > 1:  # more negatives never lower the loss
        assert one >= info_nce(h, plus) - 1e-12


def test_gradients_reach_anchors_and_positives() -> None:
    h, plus, queue = (torch.randn(n, 3, dtype=torch.float64, requires_grad=True) for n in (3, 3, 4))
    assert torch.autograd.gradcheck(
        lambda *v: queued_info_nce(*v, temperature=0.2).loss, (h, plus, queue)
    )


def test_a_queue_of_another_width_is_refused() -> None:
    h = torch.ones(2, 3)
    with pytest.raises(ConfigError, match=r"queue must have shape \(Q, d\) .* got \(2, 4\)"):
        queued_info_nce(h, h, torch.ones(2, 4))
    with pytest.raises(ConfigError, match=r"queue_ids must have shape \(5,\), got \(4,\)"):
        queued_info_nce(h, h, torch.ones(5, 3), queue_ids=torch.ones(4))


def paper_detection_loss(logits: Array, replaced: Array, mask: Array) -> float:
    """Section 3 of arXiv 2204.10298, one token at a time."""
    terms = []
    for r, t in itertools.product(*map(range, replaced.shape)):
        if mask[r, t]:
            original, other = (math.exp(x) for x in logits[r, t])
            d = original / (original + other)
            terms.append(-math.log(1 - d) if replaced[r, t] else -math.log(d))
    return sum(terms) / len(terms)


@pytest.mark.parametrize(("rows", "length"), [(1, 1), (2, 5), (4, 7)])
def test_detection_loss_follows_the_paper(rows: int, length: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    logits = torch.randn(rows, length, 2, generator=generator, dtype=torch.float64)
    replaced = torch.rand(rows, length, generator=generator) < 0.4
    lengths = torch.randint(1, length + 1, (rows, 1), generator=generator)
    mask = (torch.arange(length) < lengths).long()
    ours = replaced_token_loss(logits, replaced, mask)
    theirs = paper_detection_loss(logits.numpy(), replaced.numpy(), mask.numpy())
    assert ours.item() == pytest.approx(theirs, rel=1e-12)
    # padding counts for nothing
    longer = torch.nn.functional.pad(logits, (0, 0, 0, 3), value=9.0)
    more, none = (torch.nn.functional.pad(x, (0, 3)) for x in (replaced, mask))
    assert replaced_token_loss(longer, more, none).item() == pytest.approx(theirs, rel=1e-12)


def test_detection_loss_refuses_shapes_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match=r"logits must have shape \(2, 3, 2\).* got \(2, 3\)"):
        replaced_token_loss(torch.ones(2, 3), torch.ones(2, 3), torch.ones(2, 3))
