"""Affine maps fitted on embeddings, compared with NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from simcse_kit.errors import ConfigError
from simcse_kit.metrics.whitening import (
    Moments,
    all_but_the_top,
    moments,
    standardize,
    whitening,
)


def cloud(n: int = 200, d: int = 6, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(d, d, generator=generator, dtype=torch.float64)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) @ mixing + 3


def found(x: torch.Tensor) -> Moments:
    return moments([x])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=6), st.integers(0, 99))
def test_moments_do_not_depend_on_the_chunks(sizes: list[int], seed: int) -> None:
    x = cloud(sum(sizes) + 2, seed=seed) + 1e4
    chunks = torch.split(x, [*sizes, 2])
    merged = moments(chunks)
    assert merged.count == len(x)
    assert np.allclose(merged.mean, x.mean(dim=0))
    assert np.allclose(merged.covariance, np.cov(x.numpy().T, bias=True), atol=1e-7)


def test_whitened_vectors_have_no_correlation() -> None:
    x = cloud()
    for k in (None, 3):
        moved = whitening(found(x), k)(x)
        assert np.allclose(moved.mean(dim=0), 0, atol=1e-9)
        assert np.allclose(np.cov(moved.numpy().T, bias=True), np.eye(k or 6), atol=1e-9)


def test_whitening_is_the_papers_algorithm() -> None:
    x = cloud().numpy()
    u, s, _ = np.linalg.svd(np.cov(x.T, bias=True))
    expected = (x - x.mean(axis=0)) @ (u @ np.diag(1 / np.sqrt(s)))[:, :4]
    moved = whitening(found(torch.from_numpy(x)), 4)(torch.from_numpy(x)).numpy()
    assert np.allclose(abs(moved), abs(expected))  # an axis may point either way


def test_all_but_the_top_takes_the_first_directions_away() -> None:
    x = cloud()
    moved = all_but_the_top(found(x), 2)(x)
    _, _, axes = torch.linalg.svd(x - x.mean(dim=0))
    centred = x - x.mean(dim=0)
    expected = centred - centred @ axes[:2].T @ axes[:2]
    assert torch.allclose(moved, expected)
    assert torch.allclose(all_but_the_top(found(x), 0)(x), centred)
    assert torch.linalg.matrix_rank(all_but_the_top(found(cloud(d=250, n=400))).weight) == 248


def test_standardize() -> None:
    x = torch.cat([cloud(), torch.full((200, 1), 7.0)], dim=1)
    moved = standardize(found(x))(x)
    assert torch.allclose(moved.std(dim=0, correction=0)[:6], torch.ones(6, dtype=torch.float64))
    assert moved[:, 6].abs().max() < 1e-12


def test_more_directions_than_vary_are_refused() -> None:
    flat = cloud()
    flat[:, 5] = flat[:, 0] - flat[:, 1]
    assert len(whitening(found(flat)).weight) == 5
    with pytest.raises(ConfigError, match="vary in 5 directions"):
        whitening(found(flat), 6)
    with pytest.raises(ConfigError, match="whole numbers from 0 to 5"):
        all_but_the_top(found(flat), 6)
    with pytest.raises(ConfigError, match="give 2 or more"):
        moments([flat[:1]])
    flat[3, 1] = np.nan
    with pytest.raises(ConfigError, match="NaN"):
        moments([flat])
