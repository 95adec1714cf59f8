"""The loss in strips, compared with the plain loss, and its memory and gradients."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from simcse_kit.losses.chunk_masks import SameText
from simcse_kit.losses.contrastive_batch import ContrastiveBatch
from simcse_kit.losses.info_nce import ContrastiveTerms, info_nce
from simcse_kit.losses.nt_xent import nt_xent
from tests.contrastive import info_nce_loss


def plain(batch: ContrastiveBatch) -> ContrastiveTerms:
    return info_nce(batch, strip=0)


def in_strips(batch: ContrastiveBatch, strip: int = 512) -> ContrastiveTerms:
    return info_nce(batch, strip=strip)


@st.composite
def batches(draw: st.DrawFn) -> ContrastiveBatch:
    """Float64 leaves, with ids in which texts repeat, ragged masks, a zero row at times."""
    rows, dim = draw(st.integers(1, 9)), draw(st.integers(1, 5))
    k = draw(st.none() | st.integers(0, 3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    texts = draw(st.sampled_from([1, 4, 10**9]))

    def vectors(*shape: int) -> Tensor:
        values = torch.randn(*shape, generator=generator, dtype=torch.float64)
        if shape[0] > 2 and draw(st.booleans()):
            values[1] = 0.0
        return values.requires_grad_()

    def ids(*shape: int) -> Tensor | None:
        given_ids = torch.randint(texts, shape, generator=generator)
        return given_ids if draw(st.booleans()) else None

    mask = None
    if k is not None and draw(st.booleans()):
        share = draw(st.sampled_from([0.0, 0.5, 1.0]))
        mask = torch.rand(rows, k, generator=generator) < share
    keys = draw(st.none() | st.integers(0, 12))
    tau: float | Tensor = draw(st.sampled_from([0.01, 0.05, 0.7]))
    if draw(st.booleans()):
        shape = draw(st.sampled_from([(), (1,)]))
        tau = torch.full(shape, tau, dtype=torch.float64, requires_grad=True)
    return ContrastiveBatch(
        vectors(rows, dim),
        vectors(rows, dim),
        None if k is None else vectors(rows, k, dim),
        temperature=tau,
        hard_negative_alpha=draw(st.sampled_from([0.0, 0.3, 1.0, 2.0])),
        negative_mask=mask,
        anchor_ids=ids(rows),
        positive_ids=ids(rows),
        negative_ids=None if k is None else ids(rows, k),
        allow_no_negatives=True,
        queue=None if keys is None else vectors(keys, dim),
        queue_ids=None if keys is None else ids(keys),
    )


def leaves(batch: ContrastiveBatch) -> list[Tensor]:
    values = [batch.anchors, batch.positives, batch.hard_negatives, batch.temperature, batch.queue]
    return [value for value in values if isinstance(value, Tensor)]


def gradients(loss: Tensor, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(
        loss * 3, inputs, retain_graph=True, allow_unused=True, materialize_grads=True
    )


def same(left: ContrastiveTerms, right: ContrastiveTerms, inputs: list[Tensor]) -> None:
    close = {"rtol": 1e-10, "atol": 1e-10}
    torch.testing.assert_close(left.loss, right.loss, **close)
    torch.testing.assert_close(left.positive_cosine, right.positive_cosine, **close)
    assert torch.equal(left.accuracy, right.accuracy)
    for a, b in zip(gradients(left.loss, inputs), gradients(right.loss, inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10 * largest_inverse_norm(inputs))


def largest_inverse_norm(inputs: list[Tensor]) -> float:
    """The gradient of a cosine, and so its rounding error, grows as a vector gets shorter."""
    norms = [part.detach().norm(dim=-1).min() for part in inputs if part.dim() and part.numel()]
    return max(1.0, 1 / float(torch.stack(norms).min().clamp_min(1e-6)))


@settings(max_examples=100, deadline=None)
@given(batches(), st.integers(1, 10))
def test_strips_equal_the_whole_matrix(batch: ContrastiveBatch, strip: int) -> None:
    strips, matrix = in_strips(batch, strip), plain(batch)
    assert type(strips.loss.grad_fn) is not type(matrix.loss.grad_fn)
    same(strips, matrix, leaves(batch))


def sample(rows: int, dim: int, k: int = 0, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(rows + k)
    shapes = [(rows, dim), (rows, dim)] + ([(rows, k, dim)] if k else [])
    return [torch.randn(*shape, generator=generator, dtype=dtype) for shape in shapes]


def learned(values: list[Tensor]) -> list[Tensor]:
    return [value.requires_grad_() for value in values]


class Largest(TorchDispatchMode):
    """Remembers the most elements that any operation put out."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self.elements = max(self.elements, *sizes, 0)
        return result


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("repeat", [False, True])
def test_large_batches_go_in_strips(symmetric: bool, repeat: bool) -> None:
    rows = 530
    inputs = learned(sample(rows, 4, 1))
    ids = torch.arange(rows) // (5 if repeat else 1)

    batch = ContrastiveBatch(
        *inputs,
        anchor_ids=ids,
        positive_ids=ids + rows,
        negative_ids=ids.flip(0).unsqueeze(1),
    )

    def terms(strip: int | None = None) -> ContrastiveTerms:
        return info_nce(batch, symmetric=symmetric, strip=strip)

    strips = terms()
    matrix = terms(strip=0)
    assert symmetric or type(strips.loss.grad_fn) is not type(matrix.loss.grad_fn)
    same(strips, matrix, inputs)


@pytest.mark.long
@pytest.mark.parametrize("repeat", [False, True])
def test_no_matrix_of_logits_is_ever_made(monkeypatch: pytest.MonkeyPatch, repeat: bool) -> None:
    monkeypatch.setattr(SameText, "most_cells", 1 << 10)
    rows, dim = 700, 8
    inputs = learned(sample(rows, dim, 1, torch.float32))
    ids = torch.arange(rows) % (2 if repeat else rows)
    batch = ContrastiveBatch(
        *inputs, anchor_ids=ids, positive_ids=ids, negative_ids=ids.unsqueeze(1)
    )
    with Largest() as seen:
        torch.autograd.backward(info_nce(batch, strip=dim).loss)
    assert seen.elements <= 2 * rows * dim
    with Largest() as seen:
        views = ContrastiveBatch(*inputs[:2], anchor_ids=ids, positive_ids=ids)
        nt_xent(views, strip=dim).backward()
    assert seen.elements <= 2 * rows * dim


def test_gradcheck() -> None:
    anchors, positives, negatives = learned(sample(4, 3, 2))
    tau = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True, False], [True, True], [False, False], [True, True]])

    def loss(a: Tensor, p: Tensor, n: Tensor, temperature: Tensor) -> Tensor:
        ids = torch.tensor([0, 1, 0, 2])
        batch = ContrastiveBatch(
            a, p, n, temperature, 0.5, mask, anchor_ids=ids, positive_ids=ids + 10
        )
        return in_strips(batch, strip=3).loss

    assert torch.autograd.gradcheck(loss, (anchors, positives, negatives, tau))


def naive(batch: ContrastiveBatch) -> float:
    """One anchor and one candidate at a time, in Python floats."""

    def cosine(x: Tensor, y: Tensor) -> float:
        return float(x @ y) / math.sqrt(float(x @ x) * float(y @ y))

    assert batch.hard_negatives is not None
    assert batch.negative_mask is not None
    losses = []
    for i, anchor in enumerate(batch.anchors):
        own = math.exp(cosine(anchor, batch.positives[i]) / batch.tau)
        others = 0.0
        for j, positive in enumerate(batch.positives):
            if j != i:
                others += math.exp(cosine(anchor, positive) / batch.tau)
            for m, negative in enumerate(batch.hard_negatives[j]):
                weight = batch.hard_negative_alpha if i == j else 1.0
                if batch.negative_mask[j, m]:
                    others += weight * math.exp(cosine(anchor, negative) / batch.tau)
        losses.append(math.log((own + others) / own))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0, 2.0])
def test_value_of_a_double_loop(alpha: float) -> None:
    mask = torch.arange(14).reshape(7, 2) % 3 > 0
    batch = ContrastiveBatch(*sample(7, 3, 2), 0.2, alpha, mask)
    assert in_strips(batch, 3).loss.item() == pytest.approx(naive(batch), rel=1e-12)


def test_losses_near_zero_keep_their_digits_in_single_precision() -> None:
    # Each anchor is its positive and at right angles to all others: log(1 + 63 exp(-20)).
    corners = torch.eye(64)
    batch = ContrastiveBatch(corners, corners.clone())
    expected = math.log1p(63 * math.exp(-20))
    assert in_strips(batch, 10).loss.item() == pytest.approx(expected, rel=1e-5)
    # log Z - s, which is the same on paper:
    logits = corners @ corners.T / 0.05
    naive_loss = float((logits.logsumexp(1) - logits.diagonal()).mean())
    assert naive_loss != pytest.approx(expected, rel=1e-2)


def test_gradients_near_zero_keep_their_digits_in_single_precision() -> None:
    anchors, positives = sample(40, 64)
    positives = anchors + 0.1 * positives

    def gradient(dtype: torch.dtype) -> Tensor:
        inputs = learned([anchors.to(dtype), positives.to(dtype)])
        return gradients(in_strips(ContrastiveBatch(*inputs), 7).loss, inputs)[0].double()

    exact = gradient(torch.float64)
    assert exact.norm() < 1e-4
    assert (gradient(torch.float32) - exact).norm() < 1e-5 * exact.norm()


@pytest.mark.parametrize("tau", [0.002, 1e4])
def test_a_wide_range_of_logits_neither_overflows_nor_vanishes(tau: float) -> None:
    inputs = sample(20, 3)
    wide = plain(ContrastiveBatch(*inputs, temperature=tau)).loss
    single = in_strips(ContrastiveBatch(*(x.float() for x in inputs), temperature=tau), 6).loss
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(wide.item(), rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_is_widened_and_its_gradients_narrowed(dtype: torch.dtype) -> None:
    inputs = learned([x.to(dtype) for x in sample(9, 4, 1)])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = in_strips(ContrastiveBatch(*inputs), 4).loss
    exact = learned([x.detach().double() for x in inputs])
    whole = plain(ContrastiveBatch(*exact)).loss
    assert ours.dtype == torch.float32
    assert ours.item() == pytest.approx(whole.item(), rel=1e-5)
    for a, b in zip(gradients(ours, inputs), gradients(whole, exact), strict=True):
        assert a.dtype == dtype
        torch.testing.assert_close(a.double(), b, rtol=torch.finfo(dtype).eps, atol=1e-5)


def test_anchors_without_any_negative_add_nothing() -> None:
    inputs = learned(sample(3, 2, 1))
    ids = torch.zeros(3, dtype=torch.int64)
    batch = ContrastiveBatch(
        *inputs,
        negative_mask=torch.zeros(3, 1, dtype=torch.bool),
        anchor_ids=ids,
        positive_ids=ids,
    )
    terms = in_strips(batch, 2)
    assert terms.loss.item() == 0.0
    assert terms.accuracy.item() == 1.0
    for gradient in gradients(terms.loss, inputs):
        assert torch.equal(gradient, torch.zeros_like(gradient))


def test_a_tie_does_not_count_as_accurate() -> None:
    vectors = torch.eye(3)[[0, 1, 1]]
    batch = ContrastiveBatch(vectors, vectors)
    for terms in (plain(batch), in_strips(batch, 2)):
        assert terms.accuracy.item() == pytest.approx(1 / 3)
        assert terms.positive_cosine.item() == pytest.approx(1.0)


@pytest.mark.parametrize("k", [0, 2])
def test_symmetric_is_the_mean_of_both_directions(k: int) -> None:
    inputs = sample(6, 3, k)
    left, right = torch.tensor([1, 1, 2, 3, 4, 5]), torch.tensor([6, 7, 3, 8, 8, 9])
    there = info_nce_loss(*inputs, anchor_ids=left, positive_ids=right)
    back = info_nce_loss(inputs[1], inputs[0], anchor_ids=right, positive_ids=left)
    both = info_nce_loss(*inputs, anchor_ids=left, positive_ids=right, symmetric=True)
    torch.testing.assert_close(both, (there + back) / 2)


def test_symmetric_of_one_row_has_no_way_back() -> None:
    anchors, positives, negatives = sample(1, 3, 2)
    loss = info_nce_loss(anchors, positives, negatives)
    assert info_nce_loss(anchors, positives, negatives, symmetric=True).item() == loss.item() / 2


@pytest.mark.parametrize("which", [0, 1, 2, 3])
def test_only_what_is_asked_for_gets_a_gradient(which: int) -> None:
    values = [*sample(5, 3, 2), torch.tensor(0.1, dtype=torch.float64)]
    values[which].requires_grad_()
    batch = ContrastiveBatch(*values)
    (ours,) = gradients(in_strips(batch, 2).loss, [values[which]])
    (whole,) = gradients(plain(batch).loss, [values[which]])
    torch.testing.assert_close(ours, whole, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("strip", [0, 2])
def test_a_queue_is_a_hard_negative_of_every_anchor(strip: int) -> None:
    anchors, positives, negatives = learned(sample(4, 3, 2))
    texts = torch.tensor([1, 2, 3, 4])
    ids = torch.tensor([[1, 9], [9, 2], [3, 4], [8, 8]])
    mask = torch.tensor([[True, False], [True, True], [True, True], [False, True]])
    batch = ContrastiveBatch(
        anchors, positives, negatives, negative_mask=mask, anchor_ids=texts, negative_ids=ids
    )
    mixed = dataclasses.replace(
        batch,
        hard_negatives=negatives[:, :1],
        negative_mask=mask[:, :1],
        negative_ids=ids[:, :1],
        queue=negatives[:, 1][mask[:, 1]],
        queue_ids=ids[:, 1][mask[:, 1]],
    )
    same(
        info_nce(mixed, strip=strip), info_nce(batch, strip=strip), [anchors, positives, negatives]
    )


def test_without_gradient_nothing_is_kept() -> None:
    batch = ContrastiveBatch(*learned(sample(5, 3, 2)))
    with torch.no_grad():
        quiet = in_strips(batch, 2)
    assert not quiet.loss.requires_grad
    assert quiet.loss.item() == in_strips(batch, 2).loss.item()
    assert not in_strips(batch).accuracy.requires_grad


def test_float_temperature_is_not_rounded() -> None:
    batch = ContrastiveBatch(*sample(5, 3))
    exact = dataclasses.replace(batch, temperature=torch.tensor(0.05, dtype=torch.float64))
    assert in_strips(batch).loss.item() == in_strips(exact).loss.item()
