"""Correlation of scores and grades, and the cosine of paired embeddings.

Published STS scores are correlations of cosines, without a trained regressor, times 100
(arXiv 2104.08821, appendix B).
"""

from __future__ import annotations

import logging
from functools import cache

import numpy as np
from scipy.stats import rankdata

from simcse_kit.errors import DataError

__all__ = ["paired_cosine", "pearson", "spearman"]

logger = logging.getLogger(__name__)


def spearman(predicted: np.ndarray, gold: np.ndarray) -> float:
    """Compute Spearman's rank correlation times 100; ties get their average rank.

    Args:
        predicted: (n,) scores, n >= 3.
        gold: (n,) grades.

    Returns:
        The correlation in [-100, 100], or NaN (logged once) if a side is constant.

    Raises:
        DataError: There are fewer than 3 pairs, the lengths differ, or values are not finite.

    Examples:
        >>> spearman(np.array([0.1, 0.5, 0.9]), np.array([0, 3, 5]))
        100.0
    """
    x, y = _checked(predicted, gold)
    if _undefined(x, y):
        return float("nan")
    return _correlation(rankdata(x), rankdata(y))


def pearson(predicted: np.ndarray, gold: np.ndarray) -> float:
    """Compute Pearson's correlation times 100, with the arguments of :func:`spearman`."""
    x, y = _checked(predicted, gold)
    if _undefined(x, y):
        return float("nan")
    return _correlation(x, y)


def paired_cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Compute the cosine of each row of ``a`` with the same row of ``b``.

    The computation is in float64, so that rounding causes no ties. Equal rows give exactly 1.

    Args:
        a: (n, d) embeddings of the first sentences.
        b: (n, d) embeddings of the second sentences.

    Returns:
        (n,) float64 in [-1, 1].

    Raises:
        DataError: The shapes differ, or an embedding is all zeros or not finite.

    Examples:
        >>> paired_cosine(np.array([[1.0, 0.0]]), np.array([[1.0, 1.0]])).round(4)
        array([0.7071])
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.ndim != 2 or a.shape != b.shape:
        raise DataError(
            f"cosine: the two sides have shapes {a.shape} and {b.shape}; give (n, d) twice"
        )
    bad = np.stack([~np.isfinite(side).all(axis=1) | ~side.any(axis=1) for side in (a, b)], axis=1)
    if bad.any():
        pair, side = np.argwhere(bad)[0]
        raise DataError(
            f"cosine: {int(bad.sum())} of {bad.size} embeddings are all zeros or not finite, the "
            f"first for sentence {side + 1} of the pair at index {pair}; the encoder must give "
            "every sentence a direction"
        )
    # Scaling prevents overflow of the squares. sqrt(x * x) is exactly x, so one root of the product
    # of squared lengths makes the cosine of equal rows exactly 1, and ties them.
    a = a / np.abs(a).max(axis=1, keepdims=True)
    b = b / np.abs(b).max(axis=1, keepdims=True)
    inner = np.einsum("nd,nd->n", a, b)
    lengths = np.sqrt(np.einsum("nd,nd->n", a, a) * np.einsum("nd,nd->n", b, b))
    return np.asarray(np.clip(inner / lengths, -1.0, 1.0))


def _checked(predicted: np.ndarray, gold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(predicted, dtype=np.float64), np.asarray(gold, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise DataError(
            f"correlation: scores have shape {x.shape} and gold {y.shape}; give (n,) twice"
        )
    if len(x) < 3:
        raise DataError(f"correlation: {len(x)} pairs; give at least 3 graded pairs")
    bad = int((~(np.isfinite(x) & np.isfinite(y))).sum())
    if bad:
        raise DataError(f"correlation: {bad} of {len(x)} pairs hold NaN or infinity; drop them")
    return x, y


def _undefined(x: np.ndarray, y: np.ndarray) -> bool:
    """Check whether a side is constant up to rounding, so that its ranks are meaningless."""
    for side, values in (("all predicted scores", x), ("all gold scores", y)):
        if np.ptp(values) <= 1e-13 * np.abs(values).max():
            _warn_once(side)
            return True
    return False


@cache
def _warn_once(side: str) -> None:
    logger.warning(
        "correlation is undefined (NaN): %s are the same%s",
        side,
        "; the embeddings may have collapsed" if "predicted" in side else "",
    )


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    # Scaling prevents overflow and underflow of the squares.
    x, y = x / np.abs(x).max(), y / np.abs(y).max()
    x, y = x - x.mean(), y - y.mean()
    return float(100.0 * np.clip((x @ y) / np.linalg.norm(x) / np.linalg.norm(y), -1.0, 1.0))
