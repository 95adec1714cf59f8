"""Hypersphere measures against pdist, NumPy's SVD, and hand-made clouds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist

from simcse_kit.errors import ConfigError
from simcse_kit.metrics.geometry import (
    alignment,
    dimension_std,
    effective_rank,
    mean_cosine,
    uniformity,
)

CLOUD_MEASURES = [uniformity, mean_cosine, dimension_std, effective_rank]


def cloud(n: int, d: int, seed: int = 0, shift: float = 0.5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) + shift


def unit(x: torch.Tensor) -> np.ndarray:
    array = x.numpy().astype(np.float64)
    return array / np.linalg.norm(array, axis=1, keepdims=True)


def rotation(d: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))[0]


@pytest.mark.parametrize("alpha", [1.0, 2.0, 3.5])
def test_alignment_is_the_mean_powered_distance(alpha: float) -> None:
    x, y = cloud(9, 5), cloud(9, 5, seed=1)
    distances = [np.linalg.norm(a - b) for a, b in zip(unit(x), unit(y), strict=True)]
    expected = np.mean(np.power(distances, alpha))
    assert float(alignment(x, y, alpha)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("t", [0.5, 2.0, 400.0])
@pytest.mark.parametrize("tile", [1, 3, 8, 100])
def test_uniformity_is_the_log_mean_kernel_over_pdist(t: float, tile: int) -> None:
    x = cloud(17, 4)
    logits = -t * pdist(unit(x), "sqeuclidean")
    # shifted by hand: at t = 400 the plain exponentials underflow
    expected = logits.max() + np.log(np.mean(np.exp(logits - logits.max())))
    assert float(uniformity(x, t, tile)) == pytest.approx(expected, rel=1e-10)


def test_mean_cosine_is_the_mean_over_pairs() -> None:
    x = cloud(13, 6)
    gram = unit(x) @ unit(x).T
    expected = gram[np.triu_indices(13, 1)].mean()
    assert float(mean_cosine(x)) == pytest.approx(expected, rel=1e-12)


def test_dimension_std_is_the_raw_mean_std() -> None:
    x = cloud(13, 6)
    assert float(dimension_std(x)) == pytest.approx(unit(x).std(axis=0).mean(), rel=1e-12)


def test_dimension_std_of_an_isotropic_cloud_is_one_over_root_d() -> None:
    axes = torch.eye(8)
    assert float(dimension_std(torch.cat([axes, -axes]))) == pytest.approx(1 / math.sqrt(8))


@pytest.mark.parametrize(("n", "d"), [(40, 6), (5, 12), (2, 3)])
def test_effective_rank_agrees_with_the_svd(n: int, d: int) -> None:
    x = cloud(n, d)
    centred = unit(x) - unit(x).mean(axis=0)
    singular = np.linalg.svd(centred, compute_uv=False)
    p = singular[singular > 1e-12] / singular.sum()
    expected = np.exp(-(p * np.log(p)).sum())
    assert float(effective_rank(x)) == pytest.approx(expected, rel=1e-10)


def test_effective_rank_counts_equal_directions() -> None:
    axes = torch.eye(10)[:4]
    assert float(effective_rank(torch.cat([axes, -axes]))) == pytest.approx(4.0)


def test_a_collapsed_cloud_shows_it() -> None:
    x = torch.tensor([[0.3, -0.7, 0.2]]).repeat(50, 1)
    assert float(uniformity(x)) == pytest.approx(0.0, abs=1e-6)
    assert float(mean_cosine(x)) == pytest.approx(1.0, abs=1e-6)
    assert float(dimension_std(x)) == pytest.approx(0.0, abs=1e-6)
    assert float(effective_rank(x)) == 0.0
    assert float(alignment(x, x)) == 0.0


def test_self_pairs_are_excluded() -> None:
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    # the only pair is at squared distance 4; with self pairs it would be about log(1/2)
    assert float(uniformity(opposite)) == pytest.approx(-8.0)


def test_unnormalised_input_is_normalised_unless_switched_off() -> None:
    x, y = cloud(6, 3), cloud(6, 3, seed=2)
    for measure in CLOUD_MEASURES:
        assert float(measure(5 * x)) == pytest.approx(float(measure(x)), rel=1e-9)
    assert float(alignment(3 * x, 7 * y)) == pytest.approx(float(alignment(x, y)), rel=1e-12)
    plain = ((x - y) ** 2).sum(dim=1).mean()
    assert float(alignment(x, y, normalize=False)) == pytest.approx(float(plain), rel=1e-12)


def test_half_precision_is_lifted_and_the_result_is_float64() -> None:
    x = cloud(30, 8).to(torch.bfloat16)
    for measure in CLOUD_MEASURES:
        value = measure(x)
        assert value.dtype == torch.float64
        assert value.ndim == 0
        assert float(value) == pytest.approx(float(measure(x.double())), rel=1e-5)


def test_gradient_flows_through_alignment_and_uniformity() -> None:
    x = cloud(6, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: uniformity(z, tile=4), x)
    assert torch.autograd.gradcheck(lambda z: alignment(z, cloud(6, 3, seed=1)), x)


def test_no_tile_exceeds_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    original = torch.logsumexp

    def spy(values: torch.Tensor, dim: int) -> torch.Tensor:
        sizes.append(values.numel())
        return original(values, dim)

    monkeypatch.setattr(torch, "logsumexp", spy)
    uniformity(cloud(130, 4), tile=32)
    assert max(sizes) <= 32 * 32


@pytest.mark.parametrize("measure", CLOUD_MEASURES)
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1.0, 2.0]], "at least 2 rows"),
        ([[1.0, 2.0], [math.nan, 0.0]], "1 of 2 rows hold NaN"),
        ([[1.0, 2.0], [math.inf, 0.0]], "1 of 2 rows hold NaN or infinity"),
        ([[1.0, 2.0], [0.0, 0.0]], "1 of 2 rows are all zeros"),
        ([1.0, 2.0], r"shape \(2,\)"),
        ([[1, 2], [3, 4]], "torch.int64"),
    ],
)
def test_bad_clouds_are_refused(measure, rows, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        measure(torch.tensor(rows))


def test_bad_arguments_are_refused() -> None:
    x = cloud(4, 3)
    with pytest.raises(ConfigError, match="t is 0"):
        uniformity(x, t=0)
    with pytest.raises(ConfigError, match="tile is 0"):
        uniformity(x, tile=0)
    with pytest.raises(ConfigError, match="alpha is -1"):
        alignment(x, x, alpha=-1)
    with pytest.raises(ConfigError, match=r"\(4, 3\) and y \(3, 3\)"):
        alignment(x, x[:3])
    with pytest.raises(ConfigError, match="at least 1 row"):
        alignment(x[:0], x[:0])


sizes = st.tuples(st.integers(2, 24), st.integers(2, 7), st.integers(0, 10_000))


@settings(max_examples=25, deadline=None)
@given(sizes)
def test_rotation_and_permutation_change_nothing(size: tuple[int, int, int]) -> None:
    n, d, seed = size
    x, y = cloud(n, d, seed), cloud(n, d, seed + 1)
    turn = rotation(d, seed)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    # dimension_std depends on the axes, so it is free of the order only
    for measure in (uniformity, mean_cosine, effective_rank):
        assert float(measure(x @ turn)) == pytest.approx(float(measure(x)), rel=1e-6, abs=1e-9)
    for measure in CLOUD_MEASURES:
        assert float(measure(x[order])) == pytest.approx(float(measure(x)), rel=1e-6, abs=1e-9)
    expected = pytest.approx(float(alignment(x, y)), rel=1e-9)
    assert float(alignment(x @ turn, y @ turn)) == expected
    assert float(alignment(x[order], y[order])) == expected


@settings(max_examples=25, deadline=None)
@given(sizes, st.integers(1, 30))
def test_the_tile_size_does_not_matter(size: tuple[int, int, int], tile: int) -> None:
    x = cloud(*size)
    expected = pytest.approx(float(uniformity(x)), rel=1e-10, abs=1e-12)
    assert float(uniformity(x, tile=tile)) == expected


@settings(max_examples=25, deadline=None)
@given(sizes)
def test_bounds(size: tuple[int, int, int]) -> None:
    n, d, _ = size
    x = cloud(*size)
    assert -8 - 1e-9 <= float(uniformity(x)) <= 1e-9
    assert 0 <= float(dimension_std(x)) <= 1 / math.sqrt(d) + 1e-9
    assert float(effective_rank(x)) <= min(n - 1, d) + 1e-6
