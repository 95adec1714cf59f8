"""Properties of correlation and cosine, for any data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from simcse_kit.metrics.correlation import paired_cosine, pearson, spearman

grades = arrays(np.float64, st.shared(st.integers(3, 30), key="n"), elements=st.integers(-50, 50))
embeddings = arrays(
    np.float64,
    st.tuples(st.shared(st.integers(1, 12), key="rows"), st.shared(st.integers(1, 6), key="d")),
    elements=st.floats(-100, 100).filter(lambda x: abs(x) > 1e-3),
)


@settings(max_examples=50, deadline=None)
@given(grades, grades, st.randoms(use_true_random=False))
def test_correlation(x: np.ndarray, y: np.ndarray, random) -> None:
    assume(np.ptp(x) > 0 and np.ptp(y) > 0)
    order = list(range(len(x)))
    random.shuffle(order)
    for correlation in (spearman, pearson):
        value = correlation(x, y)
        assert -100 <= value <= 100
        assert correlation(y, x) == pytest.approx(value, abs=1e-9)
        assert correlation(x[order], y[order]) == pytest.approx(value, abs=1e-9)
        assert correlation(-x, y) == pytest.approx(-value, abs=1e-9)
        assert correlation(3 * x + 7, y) == pytest.approx(value, abs=1e-9)
        assert correlation(x, x) == pytest.approx(100)
    # ranks see only the order, whatever bends the scale
    assert spearman(np.exp(x / 10), y**3) == pytest.approx(spearman(x, y), abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(embeddings, embeddings, st.floats(0.01, 1000))
def test_cosine(a: np.ndarray, b: np.ndarray, factor: float) -> None:
    cosine = paired_cosine(a, b)
    assert (np.abs(cosine) <= 1).all()
    np.testing.assert_allclose(paired_cosine(b, a), cosine, atol=1e-12)
    np.testing.assert_allclose(paired_cosine(factor * a, b), cosine, atol=1e-12)
    np.testing.assert_allclose(paired_cosine(-a, b), -cosine, atol=1e-12)
    assert (paired_cosine(a, a) == 1).all()
