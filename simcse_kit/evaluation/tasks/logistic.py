"""Logistic regressions on many subsets of the same rows, fitted together.

The classifiers of a cross-validation differ only in the rows that they leave out. One matrix
product therefore serves all of them, and the mean of their Hessians is a good preconditioner for
each. Newton's method with preconditioned conjugate gradients (Nocedal and Wright 2006, algorithm
7.1) starts, for every C, from the solution for the previous one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

__all__ = ["Classifiers", "fit_path"]

logger = logging.getLogger(__name__)

Floats = NDArray[np.float64]

# Largest absolute derivative of the mean loss at a solution.
_TOLERANCE = 1e-7
_NEWTON_STEPS = 100
# A direction is accurate enough if its residual, in the norm of the preconditioner, fell to this.
_DIRECTION = 0.02
_CG_STEPS = 200
# After fewer steps than this, the preconditioner is good enough to be used again.
_FEW_CG_STEPS = 8
# Rows that are weighted at a time, so that no weighted copy of all rows is made.
_ROWS = 4096


@dataclass(frozen=True)
class Classifiers:
    """Linear classifiers of several fits.

    Attributes:
        weights: (d + 1, f, k) weights of d features and, in the last row, the intercepts, of f fits
            and k classes; k = 1 for two classes.
    """

    weights: Floats

    def predict(self, x: Floats) -> NDArray[np.int64]:
        """Return (m, f) class numbers of (m, d) features."""
        features, fits, classes = self.weights.shape
        scores = x @ self.weights[:-1].reshape(features - 1, -1)
        scores = scores.reshape(-1, fits, classes) + self.weights[-1]
        best = scores[..., 0] > 0 if classes == 1 else scores.argmax(axis=-1)
        return np.asarray(best, dtype=np.int64)


def fit_path(
    x: Floats,
    y: NDArray[np.int64],
    subsets: NDArray[np.bool_],
    grid: Sequence[float],
    solved: Callable[[int], object] = lambda _: None,
) -> Iterator[Classifiers]:
    """Fit classifiers with an L2 penalty on every subset of the rows, for every C.

    A fit minimises C Σ loss + ½ ‖w‖² without a penalty on the intercept, as scikit-learn's
    ``LogisticRegression`` does: binomial for two classes, multinomial for more.

    Args:
        x: (n, d) features.
        y: (n,) class numbers from 0.
        subsets: (n, f) True where a fit uses a row; every subset contains all classes.
        grid: values of C, best in increasing order.
        solved: callback, called with the number of fits that have been solved since the last call.

    Yields:
        The f classifiers of each C.

    Examples:
        >>> x = np.array([[-2.0], [-1.0], [1.0], [2.0]])
        >>> rows = np.array([[True, True], [True, False], [True, True], [True, True]])
        >>> (fitted,) = fit_path(x, np.array([0, 0, 1, 1]), rows, [1.0])
        >>> fitted.predict(np.array([[-3.0], [3.0]])).tolist()
        [[0, 0], [1, 1]]
    """
    problem = _Problem(x, y, subsets)
    weights = np.zeros((problem.x.shape[1], subsets.shape[1], problem.target.shape[2]))
    for c in grid:
        weights = problem.solve(weights, 1 / c, solved)
        yield Classifiers(weights)


class _Problem:
    """Rows, classes and subsets; arrays over rows and fits are (n, f, k)."""

    def __init__(self, x: Floats, y: NDArray[np.int64], subsets: NDArray[np.bool_]) -> None:
        self.x = np.column_stack([x, np.ones(len(x))])
        self.used = subsets[:, :, None].astype(np.float64)
        classes = int(y.max()) + 1
        self.binary = classes == 2  # the logit of class 0 is then fixed at 0
        self.target = np.eye(classes)[y][:, None, self.binary :]

    def solve(self, start: Floats, penalty: float, solved: Callable[[int], object]) -> Floats:
        """Return the weights (d + 1, f, k) that minimise Σ loss + ½ penalty ‖w‖²."""
        found = start.copy()
        open_fits = np.arange(start.shape[1])  # fits that have not converged
        weights, used = start.copy(), self.used
        logits = self._times(weights)
        probabilities, loss = self._losses(logits, used)
        factor, steps = None, 0
        for _ in range(_NEWTON_STEPS):
            gradient = self._gradient(used * (probabilities - self.target), weights, penalty)
            slope = np.abs(gradient).max(axis=(0, 2)) / used.sum(axis=(0, 2))
            left = slope > _TOLERANCE
            if not left.all():
                found[:, open_fits[~left]] = weights[:, ~left]
                solved(int((~left).sum()))
                open_fits, weights, used = open_fits[left], weights[:, left], used[:, left]
                logits, probabilities = logits[:, left], probabilities[:, left]
                gradient, loss = gradient[:, left], loss[left]
            if not len(open_fits):
                return found
            if factor is None or steps > self._enough_steps(len(open_fits)):
                factor = self._preconditioner(used * probabilities, probabilities, penalty)
            direction, change, steps = self._direction(
                used * probabilities, probabilities, gradient, penalty, factor
            )
            size = np.ones((1, len(open_fits), 1))
            before = loss + _norm(weights, penalty)
            for _ in range(40):
                probabilities, loss = self._losses(logits + size * change, used)
                worse = loss + _norm(weights + size * direction, penalty) > before + 1e-12 * before
                if not worse.any():
                    break
                size[:, worse] /= 2
            weights = weights + size * direction
            logits = logits + size * change
        found[:, open_fits] = weights
        solved(len(open_fits))
        logger.warning(
            "%d logistic regressions with C = %g did not converge in %d steps",
            len(open_fits),
            1 / penalty,
            _NEWTON_STEPS,
        )
        return found

    def _times(self, weights: Floats) -> Floats:
        """Multiply the rows with weights (d + 1, f, k)."""
        features, fits, classes = weights.shape
        return (self.x @ weights.reshape(features, -1)).reshape(-1, fits, classes)

    def _gradient(self, residual: Floats, weights: Floats, penalty: float) -> Floats:
        """Multiply residuals (n, f, k) with the rows, and add the gradient of the penalty."""
        product = (self.x.T @ residual.reshape(len(residual), -1)).reshape(weights.shape)
        product[:-1] += penalty * weights[:-1]
        return product

    def _losses(self, logits: Floats, used: Floats) -> tuple[Floats, Floats]:
        """Return the probabilities (n, f, k) and the summed losses (f,)."""
        top = logits.max(axis=-1, keepdims=True)
        if self.binary:
            top = np.maximum(top, 0)
        probabilities = np.exp(logits - top)
        total = probabilities.sum(axis=-1, keepdims=True)
        if self.binary:
            total += np.exp(-top)
        probabilities /= total
        loss = top + np.log(total) - (self.target * logits).sum(axis=-1, keepdims=True)
        return probabilities, (used * loss).sum(axis=(0, 2))

    def _enough_steps(self, fits: int) -> float:
        """Return the number of steps of conjugate gradients that cost as much as a preconditioner.

        With n rows, a step takes 4 n (d + 1) f k operations, a preconditioner n (d + 1)² k (k + 1).
        """
        features, classes = self.x.shape[1], self.target.shape[2]
        return float(max(_FEW_CG_STEPS, features * (classes + 1) / (4 * fits)))

    def _preconditioner(
        self, weighted: Floats, probabilities: Floats, penalty: float
    ) -> tuple[Floats, bool]:
        """Factorise the mean of the Hessians of all fits, (k (d + 1), k (d + 1))."""
        features, (_, fits, classes) = self.x.shape[1], probabilities.shape
        hessian = np.zeros((classes, features, classes, features))
        for i in range(classes):
            for j in range(i + 1):
                curvature = (i == j) - probabilities[..., j]
                mean = (weighted[..., i] * curvature).sum(axis=1) / fits
                for first in range(0, len(mean), _ROWS):
                    part = self.x[first : first + _ROWS]
                    rows = part * mean[first : first + _ROWS, None]
                    hessian[i, :, j] += rows.T @ part
        diagonal = np.einsum("cfcf->cf", hessian)
        diagonal[:, :-1] += penalty
        # Adding one number to the intercepts of all classes changes nothing; this makes the
        # preconditioner regular.
        diagonal[:, -1] *= 1 + 1e-6
        return cho_factor(hessian.reshape(classes * features, -1), lower=True)

    def _direction(
        self,
        weighted: Floats,
        probabilities: Floats,
        gradient: Floats,
        penalty: float,
        factor: tuple[Floats, bool],
    ) -> tuple[Floats, Floats, int]:
        """Solve for Newton's direction.

        Returns:
            The direction (d + 1, f, k), its product with the rows (n, f, k), and the number of
            steps.
        """
        residual = -gradient
        direction, change = np.zeros_like(gradient), np.zeros_like(probabilities)
        search = _precondition(residual, factor)
        height = (residual * search).sum(axis=(0, 2))
        goal = _DIRECTION**2 * height
        for steps in range(1, _CG_STEPS + 1):  # noqa: B007
            moved = self._times(search)
            inner = (probabilities * moved).sum(axis=-1, keepdims=True)
            curved = self._gradient(weighted * (moved - inner), search, penalty)
            along = _ratio(height, (search * curved).sum(axis=(0, 2)))
            direction += along * search
            change += along * moved
            residual -= along * curved
            scaled = _precondition(residual, factor)
            previous, height = height, (residual * scaled).sum(axis=(0, 2))
            if (height <= goal).all():
                break
            search = scaled + _ratio(height, previous) * search
        return direction, change, steps


def _norm(weights: Floats, penalty: float) -> Floats:
    half: Floats = 0.5 * penalty * np.square(weights[:-1]).sum(axis=(0, 2))
    return half


def _ratio(above: Floats, below: Floats) -> Floats:
    """Divide (f,) by (f,) into (1, f, 1); 0 where both have vanished."""
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)[None, :, None]


def _precondition(residual: Floats, factor: tuple[Floats, bool]) -> Floats:
    features, fits, classes = residual.shape
    columns = residual.transpose(2, 0, 1).reshape(classes * features, fits)
    solution: Floats = cho_solve(factor, columns)
    return solution.reshape(classes, features, fits).transpose(1, 2, 0)
