"""Tests for differences of dependent correlations and of seeds, and Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy import stats

from simcse_kit.errors import DataError

__all__ = ["PairedSeeds", "holm", "paired_seeds", "steiger", "williams"]

Key = TypeVar("Key", bound=Hashable)


def williams(first: float, second: float, between: float, pairs: int) -> tuple[float, float]:
    """Test with Williams' t whether two correlations with the same variable differ.

    The test compares ``r(gold, a)`` with ``r(gold, b)`` on the same pairs, two-sided, with n - 3
    degrees of freedom (Williams 1959, "The comparison of regression variables", JRSS B 21, pages
    396-399; Steiger 1980, "Tests for comparing elements of a correlation matrix", Psychological
    Bulletin 87, equation 7). For Spearman's correlation it is an approximation.

    Args:
        first: Correlation of gold and a, in [-1, 1].
        second: Correlation of gold and b.
        between: Correlation of a and b.
        pairs: Number of pairs n, at least 4.

    Returns:
        t and p; NaN if the three correlations are impossible together, or a and b are equal.

    Raises:
        DataError: Fewer than 4 pairs.

    Examples:
        >>> t, p = williams(0.5, 0.4, 0.1, pairs=103)
        >>> round(t, 2), round(p, 2)
        (0.89, 0.37)
    """
    _check(pairs)
    determinant = 1 - first**2 - second**2 - between**2 + 2 * first * second * between
    mean = (first + second) / 2
    scale = 2 * (pairs - 1) / (pairs - 3) * determinant + mean**2 * (1 - between) ** 3
    if not scale > 0:
        return math.nan, math.nan
    t = (first - second) * math.sqrt((pairs - 1) * (1 + between) / scale)
    return t, float(2 * stats.t.sf(abs(t), pairs - 3))


def steiger(first: float, second: float, between: float, pairs: int) -> tuple[float, float]:
    """Test with Steiger's Z whether two correlations with the same variable differ, two-sided.

    The test compares Fisher-transformed correlations, with their covariance at the mean correlation
    (Steiger 1980, equations 3, 11 and 14). Arguments and errors are those of :func:`williams`.

    Returns:
        z and p; NaN if a correlation is 1 or -1.

    Examples:
        >>> z, p = steiger(0.2493, 0.3395, 0.4082, pairs=553)
        >>> round(z, 2), round(p, 3)
        (-2.07, 0.039)
    """
    _check(pairs)
    if not max(abs(first), abs(second), abs(between)) < 1:
        return math.nan, math.nan
    mean = (first + second) / 2
    rest = 1 - mean**2
    psi = between * (1 - 2 * mean**2) - mean**2 / 2 * (1 - 2 * mean**2 - between**2)
    covariance = psi / rest**2
    if not covariance < 1:
        return math.nan, math.nan
    z = (math.atanh(first) - math.atanh(second)) * math.sqrt((pairs - 3) / (2 * (1 - covariance)))
    return z, float(2 * stats.norm.sf(abs(z)))


def holm(p_values: Mapping[Key, float]) -> dict[Key, float]:
    """Adjust p-values with Holm's step-down method, to compare directly with the level.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure", Scandinavian
    Journal of Statistics 6, pages 65-70.

    Args:
        p_values: The p-value of each test; NaN stays NaN and does not count as a test.

    Examples:
        >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
        {'a': 0.03, 'b': 0.06, 'c': 0.06}
    """
    known = {name: p for name, p in p_values.items() if not math.isnan(p)}
    adjusted = dict(p_values)
    largest = 0.0
    for place, name in enumerate(sorted(known, key=known.__getitem__)):
        largest = max(largest, min(1.0, (len(known) - place) * known[name]))
        adjusted[name] = largest
    return adjusted


@dataclass(frozen=True)
class PairedSeeds:
    """The paired t-test of two systems over the same seeds, first minus second.

    ``deviations`` are sample standard deviations. The interval ``low`` to ``high`` and the
    two-sided ``p`` are NaN if all differences are equal, so that there is no spread.
    """

    means: tuple[float, float]
    deviations: tuple[float, float]
    difference: float
    low: float
    high: float
    p: float
    seeds: int


def paired_seeds(
    first: Sequence[float], second: Sequence[float], *, level: float = 0.95
) -> PairedSeeds:
    """Compare two systems with the paired t-test over seeds (Student 1908).

    Args:
        first: Scores of the first system, one for each seed.
        second: Scores of the second system, with the same seeds in the same order.
        level: Confidence level of the interval.

    Raises:
        DataError: The numbers of scores differ or are below 2.

    Examples:
        >>> found = paired_seeds([70.1, 71.3, 69.8, 70.7], [69.0, 70.9, 69.9, 69.5])
        >>> round(found.difference, 2), round(found.low, 2), round(found.high, 2)
        (0.65, -0.33, 1.63)
    """
    if len(first) != len(second) or len(first) < 2:
        raise DataError(
            f"{len(first)} and {len(second)} seeds cannot be paired; give the same number of "
            "both, 2 or more"
        )
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    gaps = a - b
    gap, error = float(gaps.mean()), float(gaps.std(ddof=1) / math.sqrt(len(gaps)))
    reach = p = math.nan
    if error > 0:
        reach = float(stats.t.ppf((1 + level) / 2, len(gaps) - 1)) * error
        p = float(2 * stats.t.sf(abs(gap) / error, len(gaps) - 1))
    return PairedSeeds(
        means=(float(a.mean()), float(b.mean())),
        deviations=(float(a.std(ddof=1)), float(b.std(ddof=1))),
        difference=gap,
        low=gap - reach,
        high=gap + reach,
        p=p,
        seeds=len(gaps),
    )


def _check(pairs: int) -> None:
    if pairs < 4:
        raise DataError(f"{pairs} pairs are too few: the test needs at least 4")
