"""Correlations and cosines against SciPy and naive loops."""

from __future__ import annotations

import logging
import math
import warnings

import numpy as np
import pytest
from scipy import stats

from simcse_kit.errors import DataError
from simcse_kit.metrics import correlation as correlation_module
from simcse_kit.metrics.correlation import paired_cosine, pearson, spearman


@pytest.fixture(autouse=True)
def _forget_warnings() -> None:
    correlation_module._warn_once.cache_clear()


@pytest.mark.parametrize("ties", [False, True])
def test_correlations_are_scipys(ties: bool) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=200), rng.normal(size=200)
    y = y + x
    if ties:
        x, y = x.round(1), y.round(0)
    assert spearman(x, y) == pytest.approx(100 * stats.spearmanr(x, y).statistic, rel=1e-12)
    assert pearson(x, y) == pytest.approx(100 * stats.pearsonr(x, y).statistic, rel=1e-12)


def test_ties_get_their_average_rank() -> None:
    # ranks 1.5 1.5 3 4 against 1 2 3 4, correlated by hand: 4.5 / sqrt(4.5 * 5)
    expected = 100 * 4.5 / math.sqrt(4.5 * 5)
    assert spearman(np.array([1, 1, 2, 3]), np.array([1, 2, 3, 4])) == pytest.approx(expected)


def test_tiny_values_keep_their_order() -> None:
    x = np.array([1e-200, 2e-200, 4e-200])
    assert spearman(x, np.array([1, 2, 3])) == pytest.approx(100)
    assert pearson(x, np.array([1, 2, 4])) == pytest.approx(100)


@pytest.mark.parametrize("constant", [np.full(9, 0.3), np.zeros(9), 1 - np.arange(9) % 2 * 2e-16])
def test_a_constant_side_is_nan_and_logged_once(
    constant: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        for _ in range(3):
            assert math.isnan(spearman(constant, np.arange(9)))
            assert math.isnan(pearson(constant, np.arange(9)))
    assert [record.message for record in caplog.records] == [
        "correlation is undefined (NaN): all predicted scores are the same; "
        "the embeddings may have collapsed"
    ]
    assert math.isnan(spearman(np.arange(9), constant))


@pytest.mark.parametrize("correlation", [spearman, pearson])
@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([1, 2], [1, 2], "2 pairs; it takes at least 3"),
        ([1, 2, 3], [1, 2], r"\(3,\) and gold \(2,\)"),
        ([1, 2, math.nan], [1, 2, 3], "1 of 3 pairs hold NaN"),
        ([1, 2, 3], [1, math.inf, 3], "1 of 3 pairs hold NaN or infinity"),
    ],
)
def test_bad_scores_are_refused(correlation, x, y, message: str) -> None:
    with pytest.raises(DataError, match=message):
        correlation(np.array(x, dtype=float), np.array(y, dtype=float))


def test_paired_cosine_is_the_naive_one_in_float64() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 50, 8)).astype(np.float32)
    expected = [
        sum(float(p) * float(q) for p, q in zip(x, y, strict=True))
        / math.sqrt(sum(float(p) ** 2 for p in x))
        / math.sqrt(sum(float(q) ** 2 for q in y))
        for x, y in zip(a, b, strict=True)
    ]
    cosine = paired_cosine(a, b)
    assert cosine.dtype == np.float64
    np.testing.assert_allclose(cosine, expected, rtol=1e-14)


def test_the_cosine_of_equal_rows_is_exactly_one() -> None:
    a = np.random.default_rng(2).normal(size=(500, 33)).astype(np.float32)
    assert (paired_cosine(a, a) == 1.0).all()
    assert (paired_cosine(a, -a) == -1.0).all()


def test_very_long_and_short_rows_have_a_cosine() -> None:
    a = np.array([[3e300, 4e300], [3e-300, 4e-300]])
    b = np.array([[4e300, 3e300], [4e-300, 3e-300]])
    np.testing.assert_allclose(paired_cosine(a, b), 24 / 25)


def test_rows_without_direction_are_named() -> None:
    a, b = np.ones((4, 2)), np.ones((4, 2))
    b[1] = 0
    a[2, 0] = np.nan
    with pytest.raises(DataError, match=r"2 of 8 embeddings .* sentence 2 of the pair at index 1"):
        paired_cosine(a, b)
    with pytest.raises(DataError, match="shapes"):
        paired_cosine(a, b[:3])
