"""Tests of differences: between dependent correlations, between seeds, and over many tasks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from simcse_kit.errors import DataError

__all__ = ["PairedSeeds", "holm", "paired_seeds", "steiger", "williams"]


def williams(first: float, second: float, between: float, pairs: int) -> tuple[float, float]:
    """Williams' t-test of two correlations with the same variable.

    Of ``r(gold, a)`` against ``r(gold, b)`` on the same pairs, two-sided, with n - 3 degrees of
    freedom (Williams 1959; Steiger 1980, "Tests for comparing elements of a correlation matrix",
    equation 7). For Spearman's correlation it is an approximation.

    Args:
        first: correlation of gold and a, in [-1, 1].
        second: of gold and b.
        between: of a and b.
        pairs: n, at least 4.

    Returns:
        t and p; NaN where the correlations are no correlations, or a and b are one.
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
    """Steiger's Z of two correlations with the same variable, two-sided.

    Fisher-transformed correlations, their covariance from the mean correlation (Steiger 1980,
    equations 3, 11 and 14). Arguments and returns as for :func:`williams`, with z in place of t.
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


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down adjustment (1979): to be held against the level as they are.

    Args:
        p_values: of each test; NaN stays NaN and is not counted.
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
    """Two systems over the same seeds.

    Attributes:
        means: mean score of each.
        deviations: sample standard deviation of each.
        difference: mean of the first less the second.
        low: lower end of the t interval of the difference; NaN where all differences are equal,
            which leaves no spread to judge by.
        high: upper end; NaN there too.
        p: two-sided, of the paired t-test; NaN there too.
        seeds: how many.
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
    """The paired t-test over seeds, whose i-th scores share seed i.

    Args:
        first: scores of the first system.
        second: of the second; as many, 2 or more.
        level: of the interval.

    Raises:
        DataError: other numbers of scores.
    """
    if len(first) != len(second) or len(first) < 2:
        raise DataError(
            f"{len(first)} and {len(second)} seeds cannot be paired; give as many of both, 2 or "
            "more"
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
        raise DataError(f"{pairs} pairs: the test takes at least 4")
