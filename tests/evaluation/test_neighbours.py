"""Neighbours, the spectrum, and IsoScore."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from simcse_kit.errors import ConfigError
from simcse_kit.evaluation.evaluate import evaluate
from simcse_kit.evaluation.neighbours import hubness, nearest, share_found
from simcse_kit.metrics.spectrum import iso_score, variance_spectrum
from tests.evaluation.synthetic import BagOfWords


@settings(max_examples=30, deadline=None)
@given(st.integers(3, 40), st.integers(1, 8), st.integers(0, 99))
def test_neighbours_are_the_nearest_others(count: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((count, 4)).astype(np.float32)
    # Some rows twice: a row is never its own neighbour.
    vectors[count // 2] = vectors[0]
    k = min(k, count - 1)
    unit = vectors.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    places = nearest(vectors, k)
    for row, own in enumerate(places):
        assert row not in own
        assert len(set(own.tolist())) == k
        wanted = np.sort(cosines[row])[::-1][:k]
        np.testing.assert_allclose(np.sort(cosines[row][own])[::-1], wanted, atol=1e-5)


def test_hubness_is_the_skewness_of_occurrences() -> None:
    # Everybody's neighbour is row 0, and its own is row 1.
    places = np.array([[1], [0], [0], [0], [0]])
    occurrences = np.array([4, 1, 0, 0, 0], dtype=float)
    centred = occurrences - occurrences.mean()
    wanted = (centred**3).mean() / (centred**2).mean() ** 1.5
    assert hubness(places) == pytest.approx(wanted)
    assert math.isnan(hubness(np.array([[1], [0]])))


def test_share_of_partners_found() -> None:
    places = np.array([[1], [0], [3], [1]])
    assert share_found(places, np.array([0, 2, 3]), np.array([1, 3, 2])) == pytest.approx(2 / 3)
    assert math.isnan(share_found(places, np.array([1]), np.array([1])))


@pytest.mark.parametrize(("used", "dims"), [(1, 5), (2, 5), (5, 5), (64, 256)])
def test_iso_score_of_k_equal_dimensions(used: int, dims: int) -> None:
    variances = torch.zeros(dims)
    variances[:used] = 0.37
    assert float(iso_score(variances)) == pytest.approx((used - 1) / (dims - 1), abs=1e-6)


def test_iso_score_is_the_papers_algorithm() -> None:
    # arXiv 2108.07344, section 4, step by step, from the points on.
    rng = np.random.default_rng(0)
    points = rng.standard_normal((500, 6)) * np.array([3.0, 2, 1, 1, 0.5, 0.1])
    centred = points - points.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    diagonal = np.cov((centred @ axes.T).T).diagonal()
    scaled = np.sqrt(6) * diagonal / np.linalg.norm(diagonal)
    defect = np.linalg.norm(scaled - np.ones(6)) / np.sqrt(2 * (6 - np.sqrt(6)))
    fraction = (6 - defect**2 * (6 - np.sqrt(6))) ** 2 / 6**2
    wanted = (6 * fraction - 1) / (6 - 1)
    turned = torch.from_numpy(points @ np.linalg.qr(rng.standard_normal((6, 6)))[0] + 5)
    assert float(iso_score(variance_spectrum(turned))) == pytest.approx(wanted)
    assert float(iso_score(variance_spectrum(3 * turned, chunk=7))) == pytest.approx(wanted)


def test_spectrum_is_that_of_the_singular_values() -> None:
    x = torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    centred = x.double() - x.double().mean(dim=0)
    wanted = torch.linalg.svdvals(centred).square() / 50
    torch.testing.assert_close(variance_spectrum(x, chunk=11), wanted)


def test_bad_input() -> None:
    with pytest.raises(ConfigError, match="k is 3 for 3 vectors; allowed: 1 to 2"):
        nearest(np.ones((3, 2), dtype=np.float32), 3)
    with pytest.raises(ConfigError, match="at least 2 rows"):
        variance_spectrum(torch.ones(1, 4))
    with pytest.raises(ConfigError, match="finite embeddings"):
        variance_spectrum(torch.full((3, 4), torch.nan))
    with pytest.raises(ConfigError, match="d of 2 or more"):
        iso_score(torch.ones(1))


def test_neighbours_of_some_rows_are_those_of_all() -> None:
    vectors = np.random.default_rng(0).standard_normal((40, 5)).astype(np.float32)
    vectors[7] = vectors[3]
    rows = np.array([0, 3, 7, 39])
    np.testing.assert_array_equal(nearest(vectors, 4, rows=rows), nearest(vectors, 4)[rows])


def test_the_report_holds_them(senteval: object, encoder: BagOfWords) -> None:
    found = evaluate(encoder, "STSB", data=str(senteval)).geometry
    assert found is not None
    assert sum(found.spectrum) == pytest.approx(1)
    assert list(found.spectrum) == sorted(found.spectrum, reverse=True)
    assert 0 <= found.iso_score <= 1
    assert found.tolerance == pytest.approx(1 - found.alignment / 2)
    assert 0 <= found.neighbours_found <= 1
    report = evaluate(encoder, "STSB", data=str(senteval))
    assert len(report.to_json()["geometry"]["spectrum"]) == 16
    assert "IsoScore" in report.table()
