"""Findings for embeddings that are one point, that span few directions, or are well spread."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from simcse_kit.errors import ConfigError
from simcse_kit.metrics.collapse import Spread, collapse_of, spread_of


def cloud(rows: int, dim: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))


def test_a_wide_cloud_is_well_spread() -> None:
    found = spread_of(cloud(500, 16))
    assert found.spread == pytest.approx(1, abs=0.02)
    assert found.mean_cosine == pytest.approx(0, abs=0.01)
    assert found.effective_rank == pytest.approx(16, abs=0.3)
    assert collapse_of(found, found) is None


def test_one_point_is_complete_collapse() -> None:
    start = spread_of(cloud(32, 16))
    for now in (torch.ones(32, 16), torch.ones(32, 16) + 0.01 * cloud(32, 16), torch.zeros(32, 16)):
        found = spread_of(now)
        assert found.spread < 0.02
        assert collapse_of(found, start) == "complete"
    assert spread_of(torch.ones(32, 16)).mean_cosine == pytest.approx(1)


def test_two_directions_are_dimensional_collapse() -> None:
    start = spread_of(cloud(32, 16))
    flat = spread_of(cloud(32, 2) @ cloud(2, 16, seed=1))
    assert flat.spread > 0.5
    assert flat.effective_rank == pytest.approx(2, abs=0.1)
    assert collapse_of(flat, start) == "dimensional"


def test_a_narrow_cone_from_the_start_is_none() -> None:
    """As in raw RoBERTa, whose cosines are all near 0.99."""
    narrow = spread_of(torch.ones(32, 16) + 0.08 * cloud(32, 16))
    assert narrow.mean_cosine > 0.99
    assert narrow.spread < 0.1
    assert collapse_of(narrow, narrow) is None
    assert collapse_of(narrow, spread_of(cloud(32, 16))) == "complete"


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 40), st.integers(1, 40), st.integers(0, 2**31))
def test_laws_of_the_measure(rows: int, dim: int, seed: int) -> None:
    vectors = cloud(rows, dim, seed).double()
    found = spread_of(vectors)
    # For unit vectors the spread is at most what the mean cosine leaves.
    left = (1 - found.mean_cosine) * (rows - 1) / rows
    assert 0 <= found.spread <= math.sqrt(max(0.0, left)) + 1e-9
    assert found.effective_rank <= min(rows - 1, dim) + 1e-6
    scaled = spread_of(vectors[torch.randperm(rows)] * 7)
    assert vars(scaled) == pytest.approx(vars(found), rel=1e-6, abs=1e-6)


def test_rank_is_the_same_from_covariance_and_from_gram_matrix() -> None:
    wide = cloud(6, 9).double()
    padded = torch.cat([wide, torch.zeros(6, 20)], dim=1)
    tall = torch.cat([wide] * 4)  # more rows than dimensions, with the same singular values' shares
    rank = spread_of(wide).effective_rank
    assert spread_of(padded).effective_rank == pytest.approx(rank, rel=1e-9)
    assert spread_of(tall).effective_rank == pytest.approx(rank, rel=1e-9)
    unit = torch.nn.functional.normalize(wide, dim=1)
    singular = torch.linalg.svdvals(unit - unit.mean(dim=0))
    p = singular / singular.sum()
    expected = math.exp(-float(torch.special.xlogy(p, p).sum()))
    assert rank == pytest.approx(expected, rel=1e-6)


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 2 rows"):
        spread_of(torch.ones(1, 4))
    with pytest.raises(ConfigError, match="NaN or infinity"):
        spread_of(torch.full((2, 4), math.nan))


def test_it_says_its_numbers() -> None:
    assert str(Spread(0.5, 0.25, 3.14)) == "spread 0.500, mean cosine 0.250, effective rank 3.1"
