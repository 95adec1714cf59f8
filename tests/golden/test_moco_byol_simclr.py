"""The losses of MoCo, BYOL, SimSiam and SimCLR against NumPy transcriptions of their formulas."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from simcse_kit.errors import ConfigError
from simcse_kit.losses.contrastive_batch import ContrastiveBatch, Guide
from simcse_kit.losses.info_nce import info_nce
from simcse_kit.losses.moco import momentum_contrast
from simcse_kit.losses.nt_xent import nt_xent
from simcse_kit.losses.prediction import negative_cosine, normalized_mse


def draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


def cosine(a: Any, b: Any) -> float:
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


# ------------------------------------------------------------------ MoCo


def moco_by_hand(q: Any, k: Any, queue: Any, tau: float, taboo: list[set[int]], ids: Any) -> float:
    """Equation 1 of arXiv 1911.05722, one query and one key at a time."""
    total = 0.0
    for i in range(len(q)):
        positive = np.exp(cosine(q[i], k[i]) / tau)
        denominator = positive
        for j in range(len(queue)):
            if int(ids[j]) not in taboo[i]:
                denominator += np.exp(cosine(q[i], queue[j]) / tau)
        total -= np.log(positive / denominator)
    return total / len(q)


@pytest.mark.parametrize(
    ("rows", "size", "tau", "texts"),
    list(itertools.product([1, 4], [1, 3, 9], [0.07, 0.2, 1.0], [3, 10**6])),
)
def test_moco_follows_the_paper(rows: int, size: int, tau: float, texts: int) -> None:
    queries, keys, queue = draw(rows, 5, seed=1), draw(rows, 5, seed=2), draw(size, 5, seed=3)
    generator = torch.Generator().manual_seed(4)
    query_ids, key_ids, queue_ids = (
        torch.randint(texts, (n,), generator=generator) for n in (rows, rows, size)
    )
    terms = momentum_contrast(
        ContrastiveBatch(
            queries,
            keys,
            temperature=tau,
            anchor_ids=query_ids,
            positive_ids=key_ids,
            queue=queue,
            queue_ids=queue_ids,
        )
    )
    taboo = [{int(a), int(b)} for a, b in zip(query_ids, key_ids, strict=True)]
    arrays = [x.detach().numpy() for x in (queries, keys, queue)]
    expected = moco_by_hand(*arrays, tau, taboo, queue_ids)
    assert terms.loss.item() == pytest.approx(expected, rel=1e-10, abs=1e-12)
    assert torch.autograd.gradcheck(
        lambda a, b, c: momentum_contrast(ContrastiveBatch(a, b, temperature=tau, queue=c)).loss,
        (queries, keys, queue),
    )
    wins = []
    for i, (q, k) in enumerate(zip(arrays[0], arrays[1], strict=True)):
        rivals = [
            cosine(q, key) for j, key in enumerate(arrays[2]) if int(queue_ids[j]) not in taboo[i]
        ]
        wins.append(all(cosine(q, k) > rival for rival in rivals))
    assert terms.accuracy.item() == pytest.approx(float(np.mean(wins)))
    mean = np.mean([cosine(q, k) for q, k in zip(arrays[0], arrays[1], strict=True)])
    assert terms.positive_cosine.item() == pytest.approx(float(mean))


def test_moco_with_one_row_is_info_nce_with_a_queue() -> None:
    """With one row there are no other rows, so both denominators are equal."""
    query, key, queue = draw(1, 4, seed=1), draw(1, 4, seed=2), draw(6, 4, seed=3)
    batch = ContrastiveBatch(query, key, temperature=0.2, queue=queue)
    torch.testing.assert_close(momentum_contrast(batch).loss, info_nce(batch).loss)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 8), st.integers(0, 2**31), st.floats(0.5, 20))
def test_moco_does_not_know_the_order_of_the_queue_nor_lengths(
    rows: int, size: int, seed: int, scale: float
) -> None:
    queries, keys, queue = draw(rows, 4, seed=seed), draw(rows, 4, seed=7), draw(size, 4, seed=8)
    expected = momentum_contrast(ContrastiveBatch(queries, keys, queue=queue)).loss
    shuffled = queue[torch.randperm(size)] * scale
    found = momentum_contrast(ContrastiveBatch(queries * scale, keys, queue=shuffled)).loss
    torch.testing.assert_close(found, expected)


def test_moco_leaves_all_of_a_queue_of_one_text_out() -> None:
    ids = torch.zeros(2, dtype=torch.int64)
    queries = draw(2, 4)
    keys, queue = draw(2, 4, seed=1), draw(2, 4, seed=2)
    terms = momentum_contrast(
        ContrastiveBatch(queries, keys, anchor_ids=ids, queue=queue, queue_ids=ids)
    )
    assert terms.loss.item() == 0.0
    (gradient,) = torch.autograd.grad(terms.loss, queries)
    assert torch.equal(gradient, torch.zeros_like(gradient))


A, QUEUE = torch.ones(2, 3), torch.ones(4, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "momentum_contrast got an empty queue; give 1 key or more, or use info_nce"),
        ({"queue": QUEUE[:0]}, "momentum_contrast got an empty queue"),
        ({"hard_negatives": A.unsqueeze(1), "queue": QUEUE}, "does not use hard_negatives"),
        ({"guide": Guide(A, A), "queue": QUEUE}, "momentum_contrast does not use guide; leave it"),
    ],
)
def test_wrong_inputs_of_moco_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        momentum_contrast(ContrastiveBatch(A, A, **options))
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------ BYOL and SimSiam


@pytest.mark.parametrize(("rows", "dim"), [(1, 1), (3, 2), (8, 16)])
def test_predictions_follow_the_papers(rows: int, dim: int) -> None:
    predictions, targets = draw(rows, dim, seed=rows), draw(rows, dim, seed=dim + 50)
    p, z = predictions.detach().numpy(), targets.detach().numpy()
    squares, cosines = 0.0, 0.0
    for i in range(rows):
        difference = p[i] / np.linalg.norm(p[i]) - z[i] / np.linalg.norm(z[i])
        squares += float(difference @ difference)
        cosines += cosine(p[i], z[i])
    byol = normalized_mse(predictions, targets)
    simsiam = negative_cosine(predictions, targets)
    assert byol.item() == pytest.approx(squares / rows, rel=1e-10, abs=1e-12)
    assert simsiam.item() == pytest.approx(-cosines / rows, rel=1e-10, abs=1e-12)
    # An independent implementation, gradients and all.
    peer = 2 - 2 * F.cosine_similarity(predictions, targets.detach()).mean()
    torch.testing.assert_close(byol, peer)
    for ours, theirs in ((byol, peer), (simsiam, peer / 2 - 1)):
        grads = [torch.autograd.grad(x, predictions, retain_graph=True)[0] for x in (ours, theirs)]
        torch.testing.assert_close(*grads)


@pytest.mark.parametrize("loss", [negative_cosine, normalized_mse])
def test_no_gradient_reaches_what_is_predicted(loss: Any) -> None:
    predictions, targets = draw(3, 4, seed=1), draw(3, 4, seed=2)
    torch.autograd.backward(loss(predictions, targets))
    assert predictions.grad is not None
    assert predictions.grad.any()
    assert targets.grad is None


def test_without_stop_gradient_both_sides_are_pulled() -> None:
    predictions, targets = draw(3, 4, seed=1), draw(3, 4, seed=2)
    loss = negative_cosine(predictions, targets, stop_gradient=False)
    grads = torch.autograd.grad(loss, (predictions, targets))
    swapped = negative_cosine(targets, predictions, stop_gradient=False)
    for got, expected in zip(
        grads, torch.autograd.grad(swapped, (predictions, targets)), strict=True
    ):
        torch.testing.assert_close(got, expected)


def test_extremes_of_the_predictions() -> None:
    x = draw(4, 5)
    assert normalized_mse(x, 3 * x).item() == pytest.approx(0, abs=1e-12)
    assert normalized_mse(x, -x).item() == pytest.approx(4)
    assert negative_cosine(x, 0.1 * x).item() == pytest.approx(-1)


@pytest.mark.parametrize("loss", [negative_cosine, normalized_mse])
def test_wrong_shapes_of_predictions_are_named(loss: Any) -> None:
    with pytest.raises(ConfigError, match=r"\(N, d\) .* got \(2, 3\) and \(4, 3\)"):
        loss(A, QUEUE)
    with pytest.raises(ConfigError, match=r"N of 1 or more"):
        loss(A[:0], A[:0])


# ------------------------------------------------------------------ SimCLR


def nt_xent_by_hand(first: Any, second: Any, tau: float, ids: list[int]) -> float:
    """Equation 1 of arXiv 2002.05709 over 2N views; equal texts are not negatives."""
    views, items = np.concatenate([first, second]), len(first)
    total = 0.0
    for i in range(2 * items):
        other = (i + items) % (2 * items)
        denominator = positive = np.exp(cosine(views[i], views[other]) / tau)
        for j in range(2 * items):
            if j not in (i, other) and ids[j] not in (ids[i], ids[other]):
                denominator = denominator + np.exp(cosine(views[i], views[j]) / tau)
        total -= np.log(positive / denominator)
    return total / (2 * items)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 7),
    st.integers(0, 2**31),
    st.sampled_from([0.05, 0.1, 0.5]),
    st.sampled_from([2, 4, 10**9]),
    st.integers(1, 15),
)
def test_nt_xent_of_pairs_leaves_equal_texts_out(
    items: int, seed: int, tau: float, texts: int, strip: int
) -> None:
    first, second = draw(items, 4, seed=seed), draw(items, 4, seed=seed + 1)
    generator = torch.Generator().manual_seed(seed)
    ids, second_ids = torch.randint(texts, (2, items), generator=generator)
    batch = ContrastiveBatch(
        first, second, temperature=tau, anchor_ids=ids, positive_ids=second_ids
    )
    loss = nt_xent(batch)
    twice = torch.cat([ids, second_ids])
    arrays = [x.detach().numpy() for x in (first, second)]
    assert loss.item() == pytest.approx(
        nt_xent_by_hand(*arrays, tau, twice.tolist()), rel=1e-9, abs=1e-12
    )
    in_strips = nt_xent(batch, strip=strip)
    torch.testing.assert_close(in_strips, loss, rtol=1e-10, atol=1e-10)
    both = [
        torch.autograd.grad(x, [first, second], materialize_grads=True) for x in (in_strips, loss)
    ]
    for got, expected in zip(*both, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
