"""Losses of graded pairs against sentence-transformers and against loops over their equations."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from simcse_kit.losses.angle import angle
from simcse_kit.losses.cosent import cosent
from simcse_kit.losses.cosine_regression import cosine_regression
from simcse_kit.losses.similarity import pair_cosine

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from sentence_transformers.sentence_transformer import losses as peers

SCORES = {
    "no ties": torch.tensor([0.2, 5.0, 3.1, 0.0, 4.4, 1.7, 2.6], dtype=torch.float64),
    "ties": torch.tensor([3.0, 5.0, 3.0, 0.0, 5.0, 0.0, 3.0], dtype=torch.float64),
    "two values": torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0], dtype=torch.float64),
    "all equal": torch.full((7,), 2.0, dtype=torch.float64),
}
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def leaves(width: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 7, width, dtype=torch.float64, generator=generator)
    return first.requires_grad_(), second.requires_grad_()


def with_gradients(loss: Callable[[Tensor, Tensor], Tensor], width: int) -> list[Tensor]:
    pair = leaves(width)
    value = loss(*pair)
    return [value.detach(), *torch.autograd.grad(value, pair, allow_unused=True)]


@pytest.mark.parametrize("scores", list(SCORES))
@pytest.mark.parametrize("width", [8, 7])
@pytest.mark.parametrize(
    ("ours", "peer"),
    [
        (lambda a, b, y: cosent(pair_cosine(a, b), y), peers.CoSENTLoss),
        (angle, peers.AnglELoss),
    ],
    ids=["cosent", "angle"],
)
def test_ranking_has_the_loss_and_gradients_of_sentence_transformers(
    ours: Loss, peer: Any, width: int, scores: str
) -> None:
    labels = SCORES[scores]
    theirs = peer(model=None)
    expected = with_gradients(
        lambda a, b: theirs.compute_loss_from_embeddings([a, b], labels), width
    )
    found = with_gradients(lambda a, b: ours(a, b, labels), width)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("scores", list(SCORES))
def test_regression_has_the_loss_and_gradients_of_sentence_transformers(scores: str) -> None:
    # They compare with labels in single precision.
    labels = (SCORES[scores] / 5).float().double()
    theirs = peers.CosineSimilarityLoss(model=None)  # type: ignore[arg-type]
    expected = with_gradients(lambda a, b: theirs.compute_loss_from_embeddings([a, b], labels), 8)
    found = with_gradients(lambda a, b: cosine_regression(pair_cosine(a, b), labels), 8)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("temperature", [0.05, 0.5])
@pytest.mark.parametrize("scores", list(SCORES))
def test_cosent_is_the_formula(scores: str, temperature: float) -> None:
    labels = SCORES[scores].tolist()
    cosines = torch.linspace(-0.9, 0.8, 7, dtype=torch.float64)[torch.tensor([3, 0, 6, 2, 5, 1, 4])]
    equal = [False, True, False, True, False, False, False]
    total = 1.0
    for lower in range(7):
        for higher in range(7):
            if labels[lower] < labels[higher] and not equal[lower]:
                total += math.exp((cosines[lower] - cosines[higher]).item() / temperature)
    loss = cosent(cosines, SCORES[scores], temperature=temperature, equal=torch.tensor(equal))
    assert loss.item() == pytest.approx(math.log(total), rel=1e-12)


def test_angle_is_the_division_of_complex_numbers() -> None:
    first, second = (side.detach() for side in leaves())
    z, w = (torch.complex(*side.chunk(2, dim=1)) for side in (first, second))
    quotients = z * w.conj() / (first.norm(dim=1) * second.norm(dim=1)).unsqueeze(1)
    similarities = (quotients.real + quotients.imag).sum(dim=1).abs()
    labels = SCORES["no ties"]
    torch.testing.assert_close(angle(first, second, labels), cosent(similarities, labels))
