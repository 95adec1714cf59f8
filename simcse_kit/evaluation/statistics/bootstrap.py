"""The stratified bootstrap of Spearman's correlation, for one task, several, and their mean."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from simcse_kit.errors import ConfigError, DataError
from simcse_kit.evaluation.statistics.distribution import Distribution, least_resamples
from simcse_kit.evaluation.statistics.weighted_spearman import Floats, WeightedRanks
from simcse_kit.utils.progress import progress_bar

__all__ = ["LEVEL", "RESAMPLES", "Bootstrap", "Interval", "Sample", "check_settings"]

RESAMPLES = 10_000
LEVEL = 0.95

# Numbers in an array of versions that are computed together: few enough for the cache, and many
# enough that the calls cost nothing beside their work.
_NUMBERS = 24_000
_TOGETHER = (8, 256)
# So many pairs fill the cache by themselves.
_ONE_BY_ONE = 20_000


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
    draws, so that their differences are paired. Intervals of scores are BCa, and for means over
    tasks the acceleration is taken over the jackknife influences of all their pairs; intervals of
    differences are percentile, see :mod:`~simcse_kit.evaluation.statistics.distribution`.

    Args:
        samples: task -> its pairs; all with the same models.
        resamples: how many.
        seed: of the draws; the result does not depend on the number of threads.
        threads: at the same time; all cores if None.
        progress: a bar on stderr, after two seconds, on a terminal.

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
        progress: bool = False,
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
        with (
            ThreadPoolExecutor(threads or os.cpu_count()) as pool,
            progress_bar(
                resamples * len(samples), shown=progress, desc="resampling", delay=2
            ) as bar,
        ):
            for number, (name, sample) in enumerate(samples.items()):
                together = min(max(_NUMBERS // len(sample.gold), _TOGETHER[0]), _TOGETHER[1])
                if len(sample.gold) >= _ONE_BY_ONE:
                    together = 1
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
                found = []
                for part in parts:
                    found.append(part)
                    bar.update(len(part))
                self.draws[name] = np.concatenate(found)

    def interval(self, tasks: Sequence[str], model: int = 0, *, level: float = LEVEL) -> Interval:
        """The BCa interval of a model's score, or of its mean score over tasks.

        Args:
            tasks: one task, or several whose mean is taken.
            model: number of the model.
            level: share of such intervals that hold the true value.
        """
        check_settings(self.resamples, level)
        weights = np.eye(len(self.estimates[tasks[0]]))[model]
        estimate, draws = self._combined(tasks, weights)
        if not np.isfinite(estimate) or not len(draws):
            return Interval(estimate, np.nan, np.nan)
        acceleration = self._acceleration(tasks, weights)
        found = Distribution.corrected(draws, estimate, acceleration)
        return Interval(estimate, *found.interval(level))

    def difference(
        self, tasks: Sequence[str], model: int, first: int = 0, *, level: float = LEVEL
    ) -> tuple[Interval, float]:
        """A model's score less the first's, with percentile interval, and its two-sided p.

        p is below alpha exactly where the interval at level 1 - alpha excludes 0; both are NaN
        where the difference is undefined.

        Args: as for :meth:`interval`, and ``first``, the number of the model to subtract.
        """
        check_settings(self.resamples, level)
        unit = np.eye(len(self.estimates[tasks[0]]))
        estimate, draws = self._combined(tasks, unit[model] - unit[first])
        if not np.isfinite(estimate) or not len(draws):
            return Interval(estimate, np.nan, np.nan), np.nan
        found = Distribution(draws)
        return Interval(estimate, *found.interval(level)), found.p_value()

    def _combined(self, tasks: Sequence[str], weights: Floats) -> tuple[float, Floats]:
        """Estimate and finite draws of the mean over tasks of the weighted sum over models."""
        estimate = float(np.mean([self.estimates[task] @ weights for task in tasks]))
        draws: Floats = np.mean([self.draws[task] @ weights for task in tasks], axis=0)
        return estimate, draws[np.isfinite(draws)]

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


def check_settings(resamples: int, level: float, tests: int = 1) -> None:
    """Refuse a number of resamples or a level that gives no interval or no verdict.

    Args:
        resamples: of the bootstrap.
        level: of intervals and verdicts.
        tests: p-values that are corrected together, by Holm's method.

    Raises:
        ConfigError: fewer than 100 resamples, a level that is not between 0 and 1, or fewer
            resamples than a verdict at that level needs.
    """
    if not isinstance(resamples, int | np.integer) or resamples < 100:
        raise ConfigError(f"resamples is {resamples!r}; give 100 or more, {RESAMPLES} as a rule")
    if not 0 < level < 1:
        raise ConfigError(f"level is {level}; allowed: 0 < level < 1, such as 0.95")
    least = least_resamples(level, tests)
    if resamples < least:
        several = f" and Holm's correction of {tests} tests" if tests > 1 else ""
        raise ConfigError(
            f"resamples is {resamples}, with which no difference can be shown at level {level:g}"
            f"{several}; give {least} or more, {max(RESAMPLES, 10 * least)} as a rule"
        )


def _weights(strata: Sequence[int], versions: int, rng: np.random.Generator) -> Floats:
    """(n, versions): how often each pair is drawn."""
    total = sum(strata)
    if versions == 1:
        parts = [
            np.bincount(rng.integers(0, size, size, np.int32), minlength=size) for size in strata
        ]
        return np.concatenate(parts).astype(np.float64)[:, None]
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
