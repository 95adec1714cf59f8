"""Losses of distillation against loops over their equations, torch and sentence-transformers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simcse_kit.losses.distillation import relational_kl, target_distance, target_mse
from simcse_kit.metrics.whitening import closest_rotation, moments, principal_directions

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from sentence_transformers.sentence_transformer import losses as peers

Loss = Callable[[Tensor, Tensor], Tensor]


def sides(rows: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    vectors, targets = torch.randn(2, rows, 5, dtype=torch.float64, generator=generator)
    return vectors.requires_grad_(), targets


def check(ours: Loss, expected: Loss) -> None:
    """Compare losses and their gradients."""
    found = []
    for loss in (ours, expected):
        vectors, targets = sides()
        value = loss(vectors, targets)
        found.append([value.detach(), *torch.autograd.grad(value, vectors)])
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-12)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b) / (a.norm() * b.norm())


def naive_kl(vectors: Tensor, targets: Tensor, temperature: float, ids: list[int]) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for i in range(len(vectors)):
        others = [j for j in range(len(vectors)) if ids[j] != ids[i]]
        p = torch.stack([(cosine(targets[i], targets[j]) / temperature).exp() for j in others])
        q = torch.stack([(cosine(vectors[i], vectors[j]) / temperature).exp() for j in others])
        p, q = p / p.sum(), q / q.sum()
        total = total + (p * (p / q).log()).sum()
    return total / len(vectors)


def test_distance_is_the_mean_of_one_minus_cosine() -> None:
    def loop(vectors: Tensor, targets: Tensor) -> Tensor:
        rows = [1 - cosine(v, t) for v, t in zip(vectors, targets, strict=True)]
        return torch.stack(rows).mean()

    check(target_distance, loop)
    check(target_distance, lambda v, t: F.cosine_embedding_loss(v, t, torch.ones(len(v))))


def test_squared_error_is_that_of_sentence_transformers() -> None:
    class Student(nn.Module):
        def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
            return {"sentence_embedding": features["vectors"]}

    theirs = peers.MSELoss(Student())  # type: ignore[arg-type]
    check(target_mse, lambda v, t: theirs([{"vectors": v}], t))


@pytest.mark.parametrize("temperature", [0.05, 1.0])
@pytest.mark.parametrize("ids", [[0, 1, 2, 3, 4, 5], [0, 1, 0, 3, 1, 0]])
def test_divergence_is_that_of_loops(temperature: float, ids: list[int]) -> None:
    check(
        lambda v, t: relational_kl(v, t, temperature=temperature, text_ids=torch.tensor(ids)),
        lambda v, t: naive_kl(v, t, temperature, ids),
    )


def test_divergence_has_the_gradient_of_a_cross_entropy() -> None:
    def list_net(vectors: Tensor, targets: Tensor) -> Tensor:
        def logits(side: Tensor) -> Tensor:
            unit = F.normalize(side, dim=1)
            return (unit @ unit.T / 0.05).fill_diagonal_(-math.inf)

        return F.cross_entropy(logits(vectors), logits(targets).softmax(dim=1))

    found = []
    for loss in (lambda v, t: relational_kl(v, t, temperature=0.05), list_net):
        vectors, targets = sides()
        found.append(torch.autograd.grad(loss(vectors, targets), vectors))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-12)


def test_principal_directions_are_singular_vectors_without_centring() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 6)) * np.arange(1, 7) + 3
    _, _, right = np.linalg.svd(rows, full_matrices=False)
    chunks = [torch.from_numpy(part) for part in np.array_split(rows, 4)]
    found = principal_directions(moments(chunks), 3).numpy()
    signs = np.sign(right[:3][range(3), np.abs(right[:3]).argmax(axis=1)])
    np.testing.assert_allclose(found, (right[:3] * signs[:, None]).T, atol=1e-10)


def test_the_closest_rotation_finds_a_rotation_again() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(30, 5, dtype=torch.float64, generator=generator)
    turn = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64, generator=generator))[0]
    found = closest_rotation(vectors, vectors @ turn + 3)
    torch.testing.assert_close(found, turn, rtol=0, atol=1e-12)
    noisy = vectors @ turn + torch.randn(30, 5, dtype=torch.float64, generator=generator)
    found = closest_rotation(vectors, noisy)
    torch.testing.assert_close(found.T @ found, torch.eye(5, dtype=torch.float64))
    for angle in (-0.1, 0.1):
        other = torch.eye(5, dtype=torch.float64)
        other[0, 0] = other[1, 1] = math.cos(angle)
        other[0, 1], other[1, 0] = -math.sin(angle), math.sin(angle)
        centred = [side - side.mean(0) for side in (vectors, noisy)]
        assert (centred[0] @ found @ other - centred[1]).square().sum() > (
            centred[0] @ found - centred[1]
        ).square().sum()
