"""Logistic regressions fitted together, compared with scikit-learn's one by one."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from simcse_kit.evaluation.tasks import logistic
from simcse_kit.evaluation.tasks.logistic import fit_path

GRID = (0.25, 1.0, 8.0, 32.0)
Data = tuple[np.ndarray, np.ndarray, np.ndarray]


def problem(classes: int, *, scale: float = 1.0, dimension: int = 12, rows: int = 240) -> Data:
    """Features, classes that overlap, and the subsets of four folds and all rows."""
    rng = np.random.default_rng(classes)
    x = rng.normal(size=(rows, dimension)) * rng.uniform(0.2, 3, dimension)
    logits = x @ rng.normal(size=(dimension, classes)) / 2 + rng.gumbel(size=(rows, classes))
    y = logits.argmax(axis=1)
    subsets = np.ones((rows, 5), dtype=bool)
    folds = StratifiedKFold(4, shuffle=True, random_state=0).split(x, y)
    for column, (_, outside) in enumerate(folds):
        subsets[outside, column] = False
    return scale * x + 3 * scale, y, subsets


def sklearns(data: Data, c: float, column: int) -> LogisticRegression:
    x, y, subsets = data
    rows = subsets[:, column]
    return LogisticRegression(C=c, tol=1e-9, max_iter=100_000).fit(x[rows], y[rows])


@pytest.mark.long
@pytest.mark.parametrize(("classes", "scale"), [(2, 1.0), (2, 20.0), (3, 1.0), (6, 1.0)])
def test_every_fit_has_the_weights_of_scikit_learns(classes: int, scale: float) -> None:
    data = problem(classes, scale=scale)
    x, y, subsets = data
    for c, fitted in zip(GRID, fit_path(x, y, subsets, GRID), strict=True):
        predicted = fitted.predict(x)
        for column in (0, 3, 4):
            expected = sklearns(data, c, column)
            weights = fitted.weights[:-1, column].T
            np.testing.assert_allclose(weights, expected.coef_, atol=1e-4 * abs(weights).max())
            differs = expected.predict(x) != predicted[:, column]
            sure = np.sort(np.atleast_2d(expected.decision_function(x).T).T, axis=1)
            near = abs(sure[:, 0]) < 1e-3 if classes == 2 else sure[:, -1] - sure[:, -2] < 1e-3
            assert not (differs & ~near).any()


def test_the_solution_does_not_depend_on_the_start_of_the_path() -> None:
    x, y, subsets = problem(3)
    (*_, warm) = fit_path(x, y, subsets, GRID)
    (cold,) = fit_path(x, y, subsets, GRID[-1:])
    np.testing.assert_allclose(warm.weights[:-1], cold.weights[:-1], atol=1e-4)


@pytest.mark.parametrize("classes", [2, 4])
def test_classes_that_a_plane_separates_are_fitted(classes: int) -> None:
    x, _, subsets = problem(classes)
    y = np.arange(len(x)) % classes
    x = np.column_stack([x, 30 * np.eye(classes)[y]])
    for fitted in fit_path(x, y, subsets, GRID):
        assert (fitted.predict(x) == y[:, None]).all()


def test_more_features_than_rows_are_fitted() -> None:
    data = problem(2, dimension=60, rows=40)
    (fitted,) = fit_path(*data, (1.0,))
    expected = sklearns(data, 1.0, 4)
    np.testing.assert_allclose(fitted.weights[:-1, 4].T, expected.coef_, atol=1e-4)


def test_every_solved_fit_is_reported_once() -> None:
    x, y, subsets = problem(2)
    reported: list[int] = []
    assert len(list(fit_path(x, y, subsets, GRID, reported.append))) == len(GRID)
    assert sum(reported) == len(GRID) * subsets.shape[1]


def test_a_fit_that_does_not_converge_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logistic, "_NEWTON_STEPS", 1)
    with caplog.at_level(logging.WARNING):
        list(fit_path(*problem(2), (8.0,)))
    assert "5 logistic regressions with C = 8 did not converge in 1 steps" in caplog.text
