"""SwAV, PCL and CPC against transcriptions of their papers, and against lightly."""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from simcse_kit.errors import ConfigError
from simcse_kit.losses.contrastive_batch import ContrastiveBatch
from simcse_kit.losses.cpc import predictive_nce
from simcse_kit.losses.prototypes import (
    concentrations,
    proto_nce,
    sinkhorn,
    spherical_kmeans,
    swapped_prediction,
)

Array = NDArray[np.float64]
GRID = list(itertools.product([(1, 2), (5, 3), (4, 9)], [0.05, 0.3, 1.0]))


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def lightly() -> ModuleType:
    """Its SwAV loss alone: the package as a whole wants torchvision."""
    spec = importlib.util.find_spec("lightly")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("lightly is not installed")
    path = Path(spec.submodule_search_locations[0]) / "loss" / "swav_loss.py"
    alone = importlib.util.spec_from_file_location("lightly_swav_loss", path)
    assert alone is not None
    assert alone.loader is not None
    module = importlib.util.module_from_spec(alone)
    alone.loader.exec_module(module)
    return module


def paper_codes(scores: Array, epsilon: float, iterations: int) -> Array:
    """Q in the paper's shape, (K, B), by the multiplications that it describes."""
    q = np.exp(scores.T / epsilon)
    q /= q.sum()
    prototypes, items = q.shape
    for _ in range(iterations):
        for k in range(prototypes):
            q[k] /= q[k].sum() * prototypes
        for b in range(items):
            q[:, b] /= q[:, b].sum() * items
    return (q * items).T


@pytest.mark.parametrize(("shape", "epsilon"), GRID)
@pytest.mark.parametrize("iterations", [1, 3, 20])
def test_sinkhorn(shape: tuple[int, int], epsilon: float, iterations: int) -> None:
    scores = draw(*shape).tanh()
    expected = paper_codes(scores.numpy(), epsilon, iterations)
    found = sinkhorn(scores, epsilon=epsilon, iterations=iterations)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("shape", "epsilon"), GRID)
def test_sinkhorn_as_lightly_has_it(shape: tuple[int, int], epsilon: float) -> None:
    scores = draw(*shape).tanh()
    expected = lightly().sinkhorn(scores, iterations=3, epsilon=epsilon)
    torch.testing.assert_close(sinkhorn(scores, epsilon=epsilon), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("shape", "temperature"), GRID)
def test_swapped_prediction(shape: tuple[int, int], temperature: float) -> None:
    first, second = draw(2, *shape)
    codes = [sinkhorn(part.tanh()) for part in (first, second)]
    rows, prototypes = shape
    total = 0.0
    for z, q in ((first, codes[1]), (second, codes[0])):
        for n in range(rows):
            p = np.exp(z[n].numpy() / temperature)
            p /= p.sum()
            total -= sum(float(q[n, k]) * np.log(p[k]) for k in range(prototypes))
    found = swapped_prediction(first, second, *codes, temperature=temperature)
    assert found.item() == pytest.approx(total / rows / 2, rel=1e-9)


@pytest.mark.parametrize(("shape", "temperature"), GRID)
def test_swapped_prediction_as_lightly_has_it(shape: tuple[int, int], temperature: float) -> None:
    first, second = draw(2, *shape).tanh().requires_grad_().unbind()
    loss = lightly().SwaVLoss(temperature=temperature, sinkhorn_epsilon=0.2)
    # it gives a tensor of one element
    expected = loss([first, second], []).squeeze()
    codes = [sinkhorn(part, epsilon=0.2) for part in (first, second)]
    found = swapped_prediction(first, second, *codes, temperature=temperature)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    grads = [torch.autograd.grad(part, [first, second]) for part in (found, expected)]
    torch.testing.assert_close(*grads, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("clusters", [2, 5])
@pytest.mark.parametrize("smoothing", [1.0, 10.0])
def test_concentrations(clusters: int, smoothing: float) -> None:
    points, centres = draw(30, 4, seed=1), torch.nn.functional.normalize(draw(clusters, 4), dim=1)
    units = torch.nn.functional.normalize(points, dim=1)
    nearest = (units @ centres.T).argmax(dim=1)
    # one cluster of a single point, whose own spread is undefined
    nearest[nearest == 0] = 1
    nearest[0] = 0
    spread = []
    for c in range(clusters):
        own = [float(np.linalg.norm(units[i] - centres[c])) for i in range(30) if nearest[i] == c]
        spread.append(
            sum(own) / (len(own) * np.log(len(own) + smoothing)) if len(own) > 1 else None
        )
    known = [value for value in spread if value is not None]
    filled = np.array([max(known) if value is None else value for value in spread])
    filled = filled.clip(np.percentile(filled, 10), np.percentile(filled, 90))
    found = concentrations(points, centres, nearest, temperature=0.2, smoothing=smoothing)
    np.testing.assert_allclose(found.numpy(), 0.2 * filled / filled.mean(), rtol=1e-9)


def test_concentrations_of_points_on_their_centres_are_the_temperature() -> None:
    centres = torch.eye(3)
    found = concentrations(centres.repeat(2, 1), centres, torch.arange(6) % 3, temperature=0.1)
    torch.testing.assert_close(found, torch.full((3,), 0.1))


def cosine(a: Array, b: Array) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize(("rows", "clusters"), [(1, 2), (6, 3), (3, 7)])
def test_proto_nce(rows: int, clusters: int) -> None:
    vectors, centres = draw(rows, 4), draw(clusters, 4, seed=1)
    phi = draw(clusters, seed=2).abs() + 0.1
    own = torch.arange(rows) % clusters
    total = 0.0
    for i in range(rows):
        scores = [
            np.exp(cosine(vectors[i].numpy(), centres[j].numpy()) / float(phi[j]))
            for j in range(clusters)
        ]
        total -= np.log(scores[int(own[i])] / sum(scores))
    found = proto_nce(vectors, centres, phi, own)
    assert found.item() == pytest.approx(total / rows, rel=1e-9)


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
@pytest.mark.parametrize("texts", [None, 10**6, 3])
def test_predictive_nce(similarity: str, temperature: float, texts: int | None) -> None:
    contexts, targets = draw(6, 4), draw(6, 4, seed=1)
    weight = draw(4, 4, seed=2)
    target_ids = None if texts is None else torch.arange(6) % texts
    anchor_ids = None if texts is None else torch.arange(100, 106)
    if anchor_ids is not None:
        anchor_ids[0] = 4  # the context of row 0 is the target of row 4
    total = 0.0
    for i in range(6):
        scores = {}
        for j in range(6):
            if texts is not None and j != i:
                assert target_ids is not None
                assert anchor_ids is not None
                if int(target_ids[j]) in (int(target_ids[i]), int(anchor_ids[i])):
                    continue
            predicted = weight.numpy() @ contexts[i].numpy()
            score = predicted @ targets[j].numpy()
            if similarity == "cosine":
                score = cosine(predicted, targets[j].numpy())
            scores[j] = np.exp(score / temperature)
        total -= np.log(scores[i] / sum(scores.values()))
    batch = ContrastiveBatch(
        contexts @ weight.T,
        targets,
        temperature=temperature,
        anchor_ids=anchor_ids,
        positive_ids=target_ids,
    )
    found = predictive_nce(batch, similarity=similarity)  # type: ignore[arg-type]
    assert found.item() == pytest.approx(total / 6, rel=1e-8)


V = torch.ones(2, 3)
ONE = torch.zeros(2, dtype=torch.int64)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sinkhorn(V[0]), r"scores must have shape \(n, K\), got \(3,\)"),
        (lambda: sinkhorn(V, epsilon=0.0), "epsilon must be above 0, got 0.0"),
        (lambda: sinkhorn(V, iterations=0), "iterations must be 1 or more, got 0"),
        (lambda: swapped_prediction(V, V, V, V[:1]), r"shape \(B, K\), got .*\(1, 3\)"),
        (lambda: swapped_prediction(V, V, V, V, temperature=0), "temperature must be above 0"),
        (lambda: proto_nce(V, V[:, :2], V[:, 0], ONE), r"got \[\(2, 3\), \(2, 2\)"),
        (
            lambda: predictive_nce(ContrastiveBatch(V, V, queue=V)),
            "predictive_nce does not use queue; leave it out or use info_nce",
        ),
        (
            lambda: spherical_kmeans(V, 3, generator=torch.Generator()),
            r"k-means into 3 clusters .* got \(2, 3\)",
        ),
    ],
)
def test_wrong_arguments_are_named(call: object, message: str) -> None:
    assert callable(call)
    with pytest.raises(ConfigError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
