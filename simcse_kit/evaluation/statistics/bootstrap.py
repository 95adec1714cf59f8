"""The stratified bootstrap of Spearman's correlation, for one task, several, and their mean."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from simcse_kit.errors import ConfigError, DataError
from simcse_kit.evaluation.statistics.weighted import Floats, WeightedRanks

__all__ = ["LEVEL", "RESAMPLES", "Bootstrap", "Interval", "Sample", "check_settings", "two_sided_p"]

RESAMPLES = 10_000
LEVEL = 0.95

# Numbers in an array of versions that are computed together: few enough for the cache, and many
# enough that the calls cost nothing beside their work.
_NUMBERS = 24_000
_TOGETHER = (8, 256)


@dataclass(frozen=True, eq=False)
class Sample:
    """The pairs of one task, as they were drawn.

    Attributes:
        gold: (n,) grades.
        predicted: (m, n) cosines of m models on the same pairs.
        strata: sizes of the subsets, in the order of the pairs; a resample takes as many of each.
    """

    gold: Floats
    predicted: Floats
    strata: tuple[int, ...]

    def __post_init__(self) -> None:
        pairs = len(self.gold)
        if self.predicted.ndim != 2 or self.predicted.shape[1] != pairs:
            raise DataError(
                f"predicted scores of shape {self.predicted.shape} for {pairs} graded pairs; "
                f"give (models, {pairs})"
            )
        if sum(self.strata) != pairs or min(self.strata, default=0) < 1:
            raise DataError(f"strata {self.strata} do not add up to {pairs} pairs")
        if pairs < 3:
            raise DataError(f"{pairs} pairs: a correlation takes at least 3 graded pairs")
        if not (np.isfinite(self.gold).all() and np.isfinite(self.predicted).all()):
            raise DataError("scores hold NaN or infinity; drop those pairs")


@dataclass(frozen=True)
class Interval:
    """A figure with its confidence interval; NaN where it is undefined.

    Attributes:
        estimate: of the pairs as they are.
        low: lower end.
        high: upper end.
    """

    estimate: float
    low: float
    high: float


class Bootstrap:
    """Resamples of one or several tasks with the correlations of each.

    Pairs are drawn with replacement within each subset of each task; all models get the same
    draws, so that their differences are paired. Intervals are bias-corrected and accelerated
    (BCa; Efron 1987, "Better bootstrap confidence intervals", JASA 82); for means over tasks the
    acceleration is taken over the jackknife influences of all their pairs.

    Args:
        samples: task -> its pairs; all with the same models.
        resamples: how many.
        seed: of the draws; the result does not depend on the number of threads.
        threads: at the same time; all cores if None.

    Attributes:
        estimates: task -> (m,) correlations x100 of the pairs as they are.
        draws: task -> (resamples, m) correlations x100; NaN where a side of a draw is constant.
    """

    def __init__(
        self,
        samples: dict[str, Sample],
        *,
        resamples: int = RESAMPLES,
        seed: int = 0,
        threads: int | None = None,
    ):
        check_settings(resamples, LEVEL)
        if len({len(sample.predicted) for sample in samples.values()}) != 1:
            raise DataError("all tasks must have the scores of the same models")
        self._ranks = {
            name: WeightedRanks(sample.gold, sample.predicted) for name, sample in samples.items()
        }
        self.estimates = {
            name: ranks.correlations(np.ones((ranks.pairs, 1)))[0]
            for name, ranks in self._ranks.items()
        }
        self.resamples = resamples
        self.draws: dict[str, Floats] = {}
        self._influence: dict[str, Floats] = {}
        with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
            for number, (name, sample) in enumerate(samples.items()):
                together = min(max(_NUMBERS // len(sample.gold), _TOGETHER[0]), _TOGETHER[1])
                sizes = [min(together, resamples - at) for at in range(0, resamples, together)]
                seeds = np.random.SeedSequence([seed, number]).spawn(len(sizes))
                ranks = self._ranks[name]
                parts = pool.map(
                    lambda size, source, ranks=ranks, strata=sample.strata: ranks.correlations(
                        _weights(strata, size, np.random.default_rng(source))
                    ),
                    sizes,
                    seeds,
                )
                self.draws[name] = np.concatenate(list(parts))

    def interval(
        self, tasks: Sequence[str], weights: Sequence[float], *, level: float = LEVEL
    ) -> Interval:
        """The interval of a combination of the models' mean scores over tasks.

        Args:
            tasks: one task, or several whose mean is taken.
            weights: (m,) of the models: ``[1]`` of a single one, ``[1, -1]`` for the first less
                the second.
            level: share of such intervals that hold the true value.
        """
        check_settings(self.resamples, level)
        mixed = np.asarray(weights, dtype=np.float64)
        estimate = float(np.mean([self.estimates[task] @ mixed for task in tasks]))
        draws = self.combined(tasks, weights)
        if not np.isfinite(estimate) or not len(draws):
            return Interval(estimate, np.nan, np.nan)
        tails = np.array([(1 - level) / 2, (1 + level) / 2])
        below = (np.sum(draws < estimate) + np.sum(draws == estimate) / 2) / len(draws)
        # All draws on one side would put the bounds at infinity.
        bias = norm.ppf(np.clip(below, 0.5 / len(draws), 1 - 0.5 / len(draws)))
        moved = bias + norm.ppf(tails)
        acceleration = self._acceleration(tasks, mixed)
        shares = norm.cdf(bias + moved / (1 - acceleration * moved))
        low, high = np.quantile(draws, shares)
        return Interval(estimate, float(low), float(high))

    def combined(self, tasks: Sequence[str], weights: Sequence[float]) -> NDArray[np.float64]:
        """The draws of a combination, as for :meth:`interval`; undefined ones are left out."""
        mixed = np.asarray(weights, dtype=np.float64)
        draws: Floats = np.mean([self.draws[task] @ mixed for task in tasks], axis=0)
        return draws[np.isfinite(draws)]

    def _acceleration(self, tasks: Sequence[str], weights: Floats) -> float:
        cubes = squares = 0.0
        for task in tasks:
            influence = self._influence_of(task) @ weights
            cubes += float(np.sum(influence**3))
            squares += float(np.sum(influence**2))
        return cubes / (6 * squares**1.5) if squares > 0 else 0.0

    def _influence_of(self, task: str) -> Floats:
        """(n, m): how much each pair adds to the task's correlations, by the jackknife."""
        if task not in self._influence:
            without = self._ranks[task].leave_one_out()
            influence = without.mean(axis=0) - without
            self._influence[task] = np.nan_to_num(influence)
        return self._influence[task]


def check_settings(resamples: int, level: float) -> None:
    """Refuse a number of resamples or a level that gives no interval.

    Raises:
        ConfigError: fewer than 100 resamples, or a level that is not between 0 and 1.
    """
    if not isinstance(resamples, int | np.integer) or resamples < 100:
        raise ConfigError(f"resamples is {resamples!r}; give 100 or more, {RESAMPLES} as a rule")
    if not 0 < level < 1:
        raise ConfigError(f"level is {level}; allowed: 0 < level < 1, such as 0.95")


def two_sided_p(draws: Floats) -> float:
    """How often draws of a difference fall on the far side of 0, two-sided; NaN without draws.

    The number of resamples bounds it from below (Davison and Hinkley 1997, section 4.4: one is
    added to both counts).
    """
    if not len(draws):
        return float("nan")
    tail = min(int(np.sum(draws <= 0)), int(np.sum(draws >= 0)))
    return min(1.0, 2 * (tail + 1) / (len(draws) + 1))


def _weights(strata: Sequence[int], versions: int, rng: np.random.Generator) -> Floats:
    """(n, versions): how often each pair is drawn."""
    total = sum(strata)
    columns = np.arange(versions, dtype=np.int64)
    drawn = np.empty((total, versions), dtype=np.int64)
    start = 0
    for size in strata:
        part = drawn[start : start + size]
        part[:] = rng.integers(start, start + size, (size, versions), dtype=np.int32)
        start += size
    drawn *= versions
    drawn += columns
    counts = np.bincount(drawn.ravel(), minlength=total * versions)
    return counts.reshape(total, versions).astype(np.float64)
