"""info_nce against a loop that follows the paper's equations, and against sentence-transformers."""

from __future__ import annotations

import itertools
import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from simcse_kit.errors import ConfigError
from simcse_kit.losses.contrast import ContrastiveBatch
from simcse_kit.losses.info_nce import info_nce, negatives_per_anchor
from simcse_kit.losses.logits import candidate_logits
from simcse_kit.losses.similarity import cosine_matrix

DIM = 3


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum() / ((a * a).sum().sqrt() * (b * b).sum().sqrt())


def paper_loss(
    h: Tensor,
    plus: Tensor,
    minus: Tensor,
    tau: float,
    alpha: float,
    present: Tensor,
    ids: tuple[Tensor, Tensor, Tensor] | None,
) -> Tensor:
    """Term by term, one anchor and one candidate at a time."""
    rows, k = present.shape
    total = h.new_zeros(())
    for i in range(rows):
        taboo = set() if ids is None else {int(ids[0][i]), int(ids[1][i])}
        numerator = torch.exp(cosine(h[i], plus[i]) / tau)
        denominator = numerator
        for j in range(rows):
            if j != i and (ids is None or int(ids[1][j]) not in taboo):
                denominator = denominator + torch.exp(cosine(h[i], plus[j]) / tau)
            for m in range(k):
                if not present[j, m] or (ids is not None and int(ids[2][j, m]) in taboo):
                    continue
                weight = alpha if i == j else 1.0
                denominator = denominator + weight * torch.exp(cosine(h[i], minus[j, m]) / tau)
        total = total - torch.log(numerator / denominator)
    return total / rows


def leaves(rows: int, k: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        values = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return values.requires_grad_()

    return draw(rows, DIM), draw(rows, DIM), draw(rows, k, DIM)


GRID = list(
    itertools.product(
        [(2, 0), (1, 1), (3, 1), (4, 2)],
        [0.05, 1.0],
        [0.0, 0.5, 1.0, 2.0],
        ["none", "unique", "duplicates"],
        [False, True],
    )
)


@pytest.mark.parametrize(("size", "tau", "alpha", "ids_kind", "ragged"), GRID)
def test_value_and_gradient_follow_the_paper(
    size: tuple[int, int], tau: float, alpha: float, ids_kind: str, ragged: bool
) -> None:
    rows, k = size
    inputs = leaves(rows, k, seed=rows * 10 + k)
    generator = torch.Generator().manual_seed(5)
    present = torch.ones(rows, k, dtype=torch.bool)
    if ragged:
        present = torch.rand(rows, k, generator=generator) < 0.6
    ids = None
    if ids_kind != "none":
        high = 4 if ids_kind == "duplicates" else 10**9
        ids = (
            torch.randint(high, (rows,), generator=generator),
            torch.randint(high, (rows,), generator=generator),
            torch.randint(high, (rows, k), generator=generator),
        )
    keywords: dict[str, Any] = {"temperature": tau, "hard_negative_alpha": alpha}
    if ids is not None:
        keywords |= {"anchor_ids": ids[0], "positive_ids": ids[1]}
    if k:
        keywords |= {"negative_mask": present, "negative_ids": None if ids is None else ids[2]}
    ours = info_nce(inputs[0], inputs[1], inputs[2] if k else None, **keywords)
    theirs = paper_loss(*inputs, tau, alpha, present, ids)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-10, abs=1e-10)
    kwargs: dict[str, Any] = {"allow_unused": True, "materialize_grads": True}
    if not theirs.requires_grad or not ours.requires_grad:
        pytest.fail("the loss must be joined to the graph")
    ours_grad = torch.autograd.grad(ours, inputs, **kwargs)
    theirs_grad = torch.autograd.grad(theirs, inputs, **kwargs)
    for got, expected in zip(ours_grad, theirs_grad, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


def test_duplicates_in_the_grid_are_real() -> None:
    anchors, positives, negatives = leaves(4, 2, seed=42)
    ids = torch.tensor([1, 2, 1, 3])
    batch = ContrastiveBatch(
        anchors,
        positives,
        negatives,
        anchor_ids=ids,
        positive_ids=ids + 10,
        negative_ids=torch.tensor([[11, 50], [2, 51], [52, 53], [54, 3]]),
    )
    with_ids = candidate_logits(batch)
    left_out = {(int(i), int(j)) for i, j in (with_ids == -torch.inf).nonzero()}
    # Positives: 11 twice (rows 0, 2). Negatives at columns 4..11: 11 for rows 0 and 2, 2, 3.
    assert left_out == {(0, 2), (2, 0), (0, 4), (2, 4), (1, 6), (3, 11)}


def test_learned_temperature_has_the_right_gradient() -> None:
    anchors, positives, negatives = (x.detach() for x in leaves(3, 2, seed=9))
    tau = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    def loss(temperature: Tensor) -> Tensor:
        return info_nce(anchors, positives, negatives, temperature=temperature)

    assert torch.autograd.gradcheck(loss, tau)


def test_gradcheck() -> None:
    anchors, positives, negatives = leaves(3, 2, seed=10)
    mask = torch.tensor([[True, False], [True, True], [False, False]])

    def loss(*vectors: Tensor) -> Tensor:
        return info_nce(*vectors, temperature=0.2, hard_negative_alpha=0.5, negative_mask=mask)

    assert torch.autograd.gradcheck(loss, (anchors, positives, negatives))


def test_value_by_hand() -> None:
    vectors = torch.eye(2)
    assert info_nce(vectors, vectors, temperature=0.5).item() == pytest.approx(
        math.log(1 + math.exp(-2)), rel=1e-6
    )
    # One own hard negative equal to the other anchor: three wrong candidates of cosine 0, one
    # of them weighted with alpha = 3, and one of cosine 1 (the other row's hard negative).
    negatives = vectors.flip(0).unsqueeze(1)
    expected = math.log((math.e**2 + 1 + 3 * 1 + math.e**2) / math.e**2)
    loss = info_nce(vectors, vectors, negatives, temperature=0.5, hard_negative_alpha=3.0)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("k", [0, 1, 3])
@pytest.mark.parametrize("tau", [0.05, 0.3])
def test_equals_sentence_transformers(k: int, tau: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    anchors, positives, negatives = leaves(5, k, seed=3)
    columns = [anchors, positives, *negatives.unbind(1)]
    peer = MultipleNegativesRankingLoss(torch.nn.Identity(), scale=1 / tau)  # type: ignore[arg-type]
    theirs = peer.compute_loss_from_embeddings(columns, torch.empty(0))
    ours = info_nce(anchors, positives, negatives if k else None, temperature=tau)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-10)
    inputs = [anchors, positives] + ([negatives] if k else [])
    for got, expected in zip(
        torch.autograd.grad(ours, inputs), torch.autograd.grad(theirs, inputs), strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


def test_alpha_zero_has_finite_gradients() -> None:
    anchors, positives, negatives = leaves(1, 1, seed=4)
    loss = info_nce(anchors, positives, negatives, hard_negative_alpha=0.0)
    assert loss.item() == 0.0
    for gradient in torch.autograd.grad(loss, (anchors, positives, negatives)):
        assert torch.equal(gradient, torch.zeros_like(gradient))


def test_a_zero_vector_neither_divides_by_zero_nor_drowns_the_others() -> None:
    anchors = torch.tensor([[0.0, 0.0], [1.0, 2.0]], requires_grad=True)
    positives = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    torch.autograd.backward(info_nce(anchors, positives))
    assert anchors.grad is not None
    assert torch.equal(anchors.grad[0], torch.zeros(2))
    assert 0 < anchors.grad[1].norm() < 100


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_is_widened(dtype: torch.dtype) -> None:
    wide = [x.detach().to(dtype) for x in leaves(4, 1, seed=6)]
    loss = info_nce(*wide)
    assert loss.dtype == torch.float32
    expected = info_nce(*(x.double() for x in wide))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_autocast_does_not_lower_the_precision() -> None:
    vectors = [x.detach().float() for x in leaves(4, 1, seed=7)]
    outside = info_nce(*vectors)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = info_nce(*vectors)
        cosines = cosine_matrix(vectors[0], vectors[1])
    assert inside.dtype == torch.float32
    assert cosines.dtype == torch.float32
    assert torch.equal(inside, outside)


def test_negatives_per_anchor_counts_the_candidates() -> None:
    for rows, k in [(2, 0), (4, 1), (3, 2), (1, 2)]:
        anchors, positives, negatives = leaves(rows, k, seed=1)
        logits = candidate_logits(ContrastiveBatch(anchors, positives, negatives))
        assert logits.isfinite().sum(dim=1).tolist() == [1 + negatives_per_anchor(rows, k)] * rows


def test_one_sentence_alone_is_refused_unless_allowed() -> None:
    vector = torch.ones(1, 2)
    with pytest.raises(ConfigError, match="a batch of one sentence has no negatives"):
        info_nce(vector, vector)
    with pytest.raises(ConfigError, match="a batch of one sentence has no negatives"):
        info_nce(vector, vector, torch.ones(1, 0, 2))
    assert info_nce(vector, vector, allow_no_negatives=True).item() == 0.0


A, P, N = torch.ones(2, 3), torch.ones(2, 3), torch.ones(2, 4, 3)


@pytest.mark.parametrize(
    ("arguments", "keywords", "message"),
    [
        ((A[0], P), {}, r"anchors .*\(B, d\).* got \(3,\)"),
        ((A[:0], P[:0]), {}, r"anchors .* got \(0, 3\)"),
        ((A, P[:1]), {}, r"positives must have shape \(2, 3\).* got \(1, 3\)"),
        ((A, P, N[:, 0]), {}, r"hard_negatives .*\(B, k, d\), got \(2, 3\)"),
        ((A, P, N[:1]), {}, r"hard_negatives .*\(2, 4, 3\).* got \(1, 4, 3\)"),
        (
            (A, P, N),
            {"negative_mask": torch.ones(2, 3)},
            r"negative_mask .*\(2, 4\).* got \(2, 3\)",
        ),
        ((A, P), {"negative_mask": torch.ones(2, 3)}, r"negative_mask .* without hard_negatives"),
        ((A, P), {"anchor_ids": torch.ones(3)}, r"anchor_ids must have shape \(2,\).* got \(3,\)"),
        ((A, P), {"positive_ids": torch.ones(2, 1)}, r"positive_ids .* got \(2, 1\)"),
        ((A, P, N), {"negative_ids": torch.ones(2)}, r"negative_ids .*\(2, 4\).* got \(2,\)"),
        ((A, P), {"temperature": 0.0}, "temperature must be above 0, got 0.0"),
        ((A, P), {"temperature": math.nan}, "temperature must be above 0, got nan"),
        ((A, P), {"temperature": torch.ones(2)}, r"one number, got a tensor of shape \(2,\)"),
        ((A, P), {"hard_negative_alpha": -0.5}, "hard_negative_alpha must be 0 or more, got -0.5"),
        ((A, P), {"hard_negative_alpha": math.inf}, "hard_negative_alpha must be 0 or more"),
    ],
)
def test_wrong_arguments_are_named(
    arguments: tuple[Tensor, ...], keywords: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        info_nce(*arguments, **keywords)
    assert "\n" not in str(caught.value)
