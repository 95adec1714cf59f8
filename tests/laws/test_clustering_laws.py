"""Properties of every assignment of equal size, and of every k-means."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from simcse_kit.losses.prototypes import sinkhorn, spherical_kmeans
from simcse_kit.losses.similarity import unit_rows

SIZES = st.tuples(st.integers(1, 12), st.integers(1, 8))
SEEDS = st.integers(0, 2**31)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scores(shape: tuple[int, int], seed: int) -> Tensor:
    return torch.rand(shape, generator=generator(seed), dtype=torch.float64) * 2 - 1


@settings(max_examples=60, deadline=None)
@given(SIZES, SEEDS, st.sampled_from([0.4, 0.5, 2.0]))
def test_equal_partition(shape: tuple[int, int], seed: int, epsilon: float) -> None:
    # Each iteration reduces the error by a factor of tanh(t / 4)² or less, where t <= 4 / epsilon
    # for scores from -1 to 1 (Franklin and Lorenz 1989): at most 0.974, and 1e-7 in the end.
    items, prototypes = shape
    codes = sinkhorn(scores(shape, seed), epsilon=epsilon, iterations=600)
    ones = torch.ones(items, dtype=torch.float64)
    torch.testing.assert_close(codes.sum(dim=1), ones, rtol=0, atol=1e-9)
    even = torch.full((prototypes,), items / prototypes, dtype=torch.float64)
    torch.testing.assert_close(codes.sum(dim=0), even, rtol=0, atol=1e-4)
    assert (codes >= 0).all()


@settings(max_examples=40, deadline=None)
@given(SIZES, SEEDS)
def test_order_and_liking_do_not_matter(shape: tuple[int, int], seed: int) -> None:
    """Items and prototypes in another order, or a prototype that all items like a bit more."""
    given_scores = scores(shape, seed)
    rows = torch.randperm(shape[0], generator=generator(seed))
    columns = torch.randperm(shape[1], generator=generator(seed))
    codes = sinkhorn(given_scores)
    found = sinkhorn(given_scores[rows][:, columns])
    torch.testing.assert_close(found, codes[rows][:, columns], rtol=1e-9, atol=1e-12)
    liked = given_scores + torch.rand(shape[1], generator=generator(seed), dtype=torch.float64)
    torch.testing.assert_close(sinkhorn(liked), codes, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("size", [1.0, 100.0, 1e4])
def test_scores_of_any_size_are_safe(size: float) -> None:
    given_scores = scores((6, 4), 0) * size
    wide, narrow = sinkhorn(given_scores), sinkhorn(given_scores.float())
    assert narrow.dtype == torch.float32
    assert narrow.isfinite().all()
    # float32 scores of 10,000 over 0.05 are exact to 0.01 only
    torch.testing.assert_close(narrow.double(), wide, rtol=0, atol=1e-6 * max(size, 1.0))
    assert sinkhorn(given_scores.half()).dtype == torch.float32


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 6), st.integers(2, 5), SEEDS)
def test_k_means(points: int, clusters: int, dim: int, seed: int) -> None:
    clusters = min(clusters, points)
    given_points = torch.randn(points, dim, generator=generator(seed), dtype=torch.float64)
    centres, nearest = spherical_kmeans(given_points, clusters, generator=generator(seed))
    units = unit_rows(given_points)
    torch.testing.assert_close(centres.norm(dim=1), torch.ones_like(centres[:, 0]))
    assert nearest.equal((units @ centres.T).argmax(dim=1))
    again = spherical_kmeans(given_points * 3, clusters, generator=generator(seed))
    torch.testing.assert_close(again[0], centres)

    def fit(rounds: int) -> float:
        found, own = spherical_kmeans(
            given_points, clusters, generator=generator(seed), iterations=rounds
        )
        return float((units * found[own]).sum())

    assert fit(20) >= fit(1) - 1e-9 or clusters == points


def test_k_means_finds_what_is_there() -> None:
    truth = torch.arange(200) % 5
    middles = torch.nn.functional.one_hot(truth, 8).float()
    points = middles + 0.1 * torch.randn(200, 8, generator=generator(0))
    for seed in range(5):
        centres, nearest = spherical_kmeans(points, 5, generator=generator(seed))
        assert len(set(zip(truth.tolist(), nearest.tolist(), strict=True))) == 5
        torch.testing.assert_close(centres[nearest], middles, rtol=0, atol=0.1)


def test_equal_points_make_no_empty_sums() -> None:
    points = torch.cat([torch.eye(3)[:1].repeat(9, 1), torch.eye(3)[1:2]])
    centres, nearest = spherical_kmeans(points, 4, generator=generator(0))
    torch.testing.assert_close(centres.norm(dim=1), torch.ones(4))
    assert math.isclose(float((points * centres[nearest]).sum()), 10.0, rel_tol=1e-6)


def test_k_means_is_as_good_as_that_of_scikit_learn() -> None:
    cluster = pytest.importorskip("sklearn.cluster")
    points = unit_rows(torch.randn(300, 6, generator=generator(1), dtype=torch.float64))
    expected = min(
        cluster.KMeans(12, n_init=1, random_state=seed).fit(points.numpy()).inertia_
        for seed in range(3)
    )

    def inertia(seed: int) -> float:
        _, nearest = spherical_kmeans(points, 12, generator=generator(seed), iterations=50)
        middles = torch.zeros(12, 6, dtype=torch.float64).index_add_(0, nearest, points)
        middles /= nearest.bincount(minlength=12).unsqueeze(1)
        return float((points - middles[nearest]).square().sum())

    assert min(inertia(seed) for seed in range(3)) < 1.05 * expected
