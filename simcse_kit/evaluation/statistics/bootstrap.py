"""Stratified bootstrap of Spearman's correlation, for single tasks and means over tasks."""

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

# Resamples are computed in groups: arrays of about this many numbers fit into the cache and are
# large enough to hide the cost of the calls.
_NUMBERS = 24_000
_TOGETHER = (8, 256)
# From this many pairs a single resample fills the cache.
_ONE_BY_ONE = 20_000


@dataclass(frozen=True, eq=False)
class Sample:
    """The pairs of one task.

    Attributes:
        gold: (n,) human scores.
        predicted: (m, n) cosines of m models on the same pairs.
        strata: Sizes of the subsets, in the order of the pairs; every resample keeps them.

    Raises:
        DataError: The shapes do not match, there are fewer than 3 pairs, or a score is not finite.
    """

    gold: Floats
    predicted: Floats
    strata: tuple[int, ...]

    def __post_init__(self) -> None:
        pairs = len(self.gold)
        if self.predicted.ndim != 2 or self.predicted.shape[1] != pairs:
            raise DataError(
                f"the predicted scores of {pairs} graded pairs have the shape "
                f"{self.predicted.shape}; give (models, {pairs})"
            )
        if sum(self.strata) != pairs or min(self.strata, default=0) < 1:
            raise DataError(f"strata {self.strata} do not add up to {pairs} pairs")
        if pairs < 3:
            raise DataError(
                f"{pairs} pairs are too few: a correlation needs at least 3 graded pairs"
            )
        if not (np.isfinite(self.gold).all() and np.isfinite(self.predicted).all()):
            raise DataError("the scores contain NaN or infinity; remove those pairs")


@dataclass(frozen=True)
class Interval:
    """A score or difference with its confidence interval; NaN if undefined.

    Attributes:
        estimate: The value on all pairs.
        low: Lower end.
        high: Upper end.
    """

    estimate: float
    low: float
    high: float


class Bootstrap:
    """Bootstrap resamples of one or more tasks, and the correlations of each resample.

    Pairs are drawn with replacement within each subset of each task. All models share the
    resamples, so that their differences are paired. Scores get BCa intervals; for a mean over tasks
    the acceleration comes from the jackknife influences of the pairs of all these tasks.
    Differences get percentile intervals, for the reason in
    :mod:`~simcse_kit.evaluation.statistics.distribution`.

    Args:
        samples: The pairs of each task, all with the same models.
        resamples: Number of resamples, at least 100.
        seed: Seed of the resampling; the result does not depend on the number of threads.
        threads: Number of threads; None means one for each core.
        progress: Show a progress bar on stderr after two seconds, on a terminal.

    Attributes:
        estimates: For each task the (m,) correlations x100 on all pairs.
        draws: For each task the (resamples, m) correlations x100; NaN if a resample is constant.

    Raises:
        ConfigError: Fewer than 100 resamples.
        DataError: The tasks have different numbers of models.

    Examples:
        >>> gold = np.arange(50.0)
        >>> good, bad = gold + 5 * np.sin(gold), gold + 40 * np.sin(gold)
        >>> sample = Sample(gold, np.stack([good, bad]), strata=(50,))
        >>> bootstrap = Bootstrap({"task": sample}, resamples=500)
        >>> score = bootstrap.interval(["task"])
        >>> score.low < score.estimate < score.high
        True
        >>> change, p = bootstrap.difference(["task"], model=1)
        >>> change.high < 0, p < 0.05
        (True, True)
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
            raise DataError(
                "the tasks have different numbers of models; score the same models on all tasks"
            )
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
        """Return the BCa interval of a model's score, or of its mean score over tasks.

        Args:
            tasks: One task, or several to average over.
            model: Number of the model.
            level: Confidence level.
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
        """Return model minus ``first`` with its percentile interval, and the two-sided p-value.

        p is below alpha exactly if the interval at level 1 - alpha excludes 0. Both are NaN if the
        difference is undefined. Arguments are those of :meth:`interval`.
        """
        check_settings(self.resamples, level)
        unit = np.eye(len(self.estimates[tasks[0]]))
        estimate, draws = self._combined(tasks, unit[model] - unit[first])
        if not np.isfinite(estimate) or not len(draws):
            return Interval(estimate, np.nan, np.nan), np.nan
        found = Distribution(draws)
        return Interval(estimate, *found.interval(level)), found.p_value()

    def _combined(self, tasks: Sequence[str], weights: Floats) -> tuple[float, Floats]:
        """Return estimate and finite draws of a weighted sum over models, averaged over tasks."""
        estimate = float(np.mean([self.estimates[task] @ weights for task in tasks]))
        draws: Floats = np.mean([self.draws[task] @ weights for task in tasks], axis=0)
        return estimate, draws[np.isfinite(draws)]

    def _acceleration(self, tasks: Sequence[str], weights: Floats) -> float:
        """Return a sixth of the skewness of the influences (Efron & Tibshirani 1993, eq. 14.15)."""
        cubes = squares = 0.0
        for task in tasks:
            influence = self._influence_of(task) @ weights
            cubes += float(np.sum(influence**3))
            squares += float(np.sum(influence**2))
        return cubes / (6 * squares**1.5) if squares > 0 else 0.0

    def _influence_of(self, task: str) -> Floats:
        """Return (n, m) contributions of each pair to the task's correlations, by the jackknife."""
        if task not in self._influence:
            without = self._ranks[task].leave_one_out()
            self._influence[task] = np.nan_to_num(without.mean(axis=0) - without)
        return self._influence[task]


def check_settings(resamples: int, level: float, tests: int = 1) -> None:
    """Check that a bootstrap can give intervals and verdicts.

    Args:
        resamples: Number of resamples.
        level: Confidence level of intervals and verdicts.
        tests: Number of p-values that Holm's method corrects together.

    Raises:
        ConfigError: Fewer than 100 resamples, a level outside 0 to 1, or fewer resamples than a
            verdict at that level needs.
    """
    if not isinstance(resamples, int | np.integer) or resamples < 100:
        raise ConfigError(f"resamples is {resamples!r}; give 100 or more, usually {RESAMPLES}")
    if not 0 < level < 1:
        raise ConfigError(f"level is {level}; allowed: 0 < level < 1, such as 0.95")
    least = least_resamples(level, tests)
    if resamples < least:
        several = f" and Holm's correction of {tests} tests" if tests > 1 else ""
        raise ConfigError(
            f"resamples is {resamples}, too few to show any difference at level {level:g}"
            f"{several}; give {least} or more, usually {max(RESAMPLES, 10 * least)}"
        )


def _weights(strata: Sequence[int], versions: int, rng: np.random.Generator) -> Floats:
    """Draw (n, versions) counts of each pair, with replacement within each stratum."""
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
