"""Several encoders on the same pairs: differences, how sure they are, and where they come from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from simcse_kit.errors import ConfigError, DataError
from simcse_kit.evaluation.pair_set import PairSet, concatenate
from simcse_kit.evaluation.results import AVERAGE, STANDARD_TASKS, Intervals, Report, TaskResult
from simcse_kit.evaluation.statistics.bootstrap import (
    LEVEL,
    RESAMPLES,
    Bootstrap,
    Interval,
    check_settings,
)
from simcse_kit.evaluation.statistics.error_analysis import (
    Flip,
    SliceScore,
    flips_of,
    sample_of,
    slice_scores,
)
from simcse_kit.evaluation.statistics.significance import holm, steiger, williams
from simcse_kit.metrics.correlation import spearman
from simcse_kit.utils.json import plain

__all__ = [
    "Comparison",
    "Difference",
    "Verdict",
    "compare_reports",
    "score_intervals",
    "verdict",
]

Verdict = Literal["better", "worse", "no difference shown"]


@dataclass(frozen=True)
class Difference:
    """A model less the first model, on one task or on the mean of the seven.

    Attributes:
        task: its name, or ``Avg.``.
        model: the one that is held against the first.
        difference: in points of Spearman x100, with the interval of the paired bootstrap.
        p: of the paired bootstrap, two-sided; below alpha exactly where the interval at level
            1 - alpha excludes 0, see :mod:`~simcse_kit.evaluation.statistics.distribution`.
        adjusted: that p after Holm's correction: over all tasks and models, or for the mean over
            all models.
        williams: p of Williams' test; NaN for the mean.
        steiger: p of Steiger's Z; NaN for the mean.
        verdict: what may be said of the model at the level of the comparison.
    """

    task: str
    model: str
    difference: Interval
    p: float
    adjusted: float
    williams: float
    steiger: float
    verdict: Verdict


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Attributes:
        models: names; the first is the one that the others are held against.
        scores: task, and ``Avg.`` where it is defined -> an interval for each model.
        differences: for each model but the first, its tasks in order.
        flips: model -> the pairs that moved most, best for it first.
        slices: model -> kinds of pairs.
        level: of intervals; 1 less it is what an adjusted p must be below.
        resamples: of the bootstrap.
        seed: of the draws.
    """

    models: list[str]
    scores: dict[str, list[Interval]]
    differences: list[Difference]
    flips: dict[str, list[Flip]] = field(default_factory=dict)
    slices: dict[str, list[SliceScore]] = field(default_factory=dict)
    level: float = LEVEL
    resamples: int = RESAMPLES
    seed: int = 0

    def of(self, model: str) -> list[Difference]:
        """The differences of one model."""
        return [each for each in self.differences if each.model == model]

    def to_json(self) -> dict[str, Any]:
        """Plain dicts and numbers; NaN as None."""
        document: dict[str, Any] = plain({"schema": 1} | asdict(self))
        return document


def score_intervals(
    report: Report,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
    progress: bool = False,
) -> Intervals:
    """The confidence interval of each task's Spearman, and of the seven-task mean as ``Avg.``.

    Args:
        report: of an evaluation.
        resamples: of the stratified bootstrap.
        seed: of the draws.
        level: of the intervals.
        progress: a bar on stderr, after two seconds, on a terminal.
    """
    samples = {name: sample_of([task]) for name, task in report.tasks.items()}
    bootstrap = Bootstrap(samples, resamples=resamples, seed=seed, progress=progress)
    scores = {
        name: bootstrap.interval(tasks, level=level)
        for name, tasks in _groups(report.tasks).items()
    }
    return Intervals(scores, level, resamples, seed)


def compare_reports(
    reports: Sequence[Report],
    pairs: Mapping[str, list[PairSet]] | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
    flips: int = 5,
    progress: bool = False,
) -> Comparison:
    """Hold every report against the first, on the same pairs.

    Args:
        reports: of two encoders or more, with the same tasks.
        pairs: task -> its subsets, as :func:`~simcse_kit.evaluation.evaluate.load_tasks` gave
            them; without it there are no flips and no slices.
        resamples: of the paired, stratified bootstrap.
        seed: of the draws.
        level: of intervals and verdicts.
        flips: pairs to name at each end.
        progress: bars on stderr, after two seconds, on a terminal.

    Raises:
        ConfigError: fewer than two reports, or fewer resamples than a verdict needs after Holm's
            correction.
        DataError: the reports are not of the same pairs.
    """
    if len(reports) < 2:
        raise ConfigError("a comparison takes two encoders or more")
    _check_same(reports)
    check_settings(resamples, level, (len(reports) - 1) * len(reports[0].tasks))
    names = _names(reports)
    tasks = {name: [report.tasks[name] for report in reports] for name in reports[0].tasks}
    bootstrap = Bootstrap(
        {name: sample_of(each) for name, each in tasks.items()},
        resamples=resamples,
        seed=seed,
        progress=progress,
    )
    groups = _groups(reports[0].tasks)
    scores = {
        name: [bootstrap.interval(members, model, level=level) for model in range(len(reports))]
        for name, members in groups.items()
    }
    found = []
    for number in range(1, len(reports)):
        for name, members in groups.items():
            interval, p = bootstrap.difference(members, number, level=level)
            one, other = (math.nan, math.nan)
            if name != AVERAGE:
                one, other = _dependent(tasks[name][number], tasks[name][0])
            found.append((name, names[number], interval, p, one, other))
    adjusted = holm({f"{m} {t}": p for t, m, _, p, *_ in found if t != AVERAGE})
    adjusted |= holm({f"{m} {t}": p for t, m, _, p, *_ in found if t == AVERAGE})
    differences = [
        Difference(
            task=task,
            model=model,
            difference=interval,
            p=p,
            adjusted=adjusted[f"{model} {task}"],
            williams=one,
            steiger=other,
            verdict=verdict(interval.estimate, adjusted[f"{model} {task}"], level),
        )
        for task, model, interval, p, one, other in found
    ]
    comparison = Comparison(
        models=names,
        scores=scores,
        differences=differences,
        level=level,
        resamples=resamples,
        seed=seed,
    )
    for number in range(1, len(reports)) if pairs is not None else ():
        assert pairs is not None
        whole = {name: concatenate(pairs[name], name) for name in tasks}
        chosen = {name: (each[0], each[number]) for name, each in tasks.items()}
        comparison.flips[names[number]] = flips_of(whole, chosen, flips)
        comparison.slices[names[number]] = slice_scores(
            whole, chosen, seed, level, progress=progress
        )
    return comparison


def verdict(difference: float, p: float, level: float) -> Verdict:
    """What may be said of a difference whose adjusted p is ``p``."""
    if math.isnan(p) or p >= 1 - level:
        return "no difference shown"
    return "better" if difference > 0 else "worse"


def _groups(tasks: Mapping[str, object]) -> dict[str, list[str]]:
    """What is scored: every task, and the mean where all seven are there."""
    groups = {name: [name] for name in tasks}
    if all(name in tasks for name in STANDARD_TASKS):
        groups[AVERAGE] = list(STANDARD_TASKS)
    return groups


def _names(reports: Sequence[Report]) -> list[str]:
    """The models' names; those that occur again get a number."""
    seen: dict[str, int] = {}
    names = []
    for report in reports:
        seen[report.model] = seen.get(report.model, 0) + 1
        number = seen[report.model]
        names.append(report.model if number == 1 else f"{report.model} ({number})")
    return names


def _check_same(reports: Sequence[Report]) -> None:
    first = reports[0]
    for other in reports[1:]:
        for name in {*first.tasks, *other.tasks}:
            one, two = first.tasks.get(name), other.tasks.get(name)
            if one is None or two is None or not np.array_equal(one.gold, two.gold):
                raise DataError(
                    f"{first.model} and {other.model} were not scored on the same pairs of "
                    f"{name}; evaluate both on the same data"
                )


def _dependent(model: TaskResult, first: TaskResult) -> tuple[float, float]:
    """p of Williams' test and of Steiger's Z."""
    between = spearman(model.cosines, first.cosines) / 100
    figures = (model.spearman / 100, first.spearman / 100, between, model.pairs)
    if model.pairs < 4 or math.isnan(sum(figures)):
        return math.nan, math.nan
    return williams(*figures)[1], steiger(*figures)[1]
