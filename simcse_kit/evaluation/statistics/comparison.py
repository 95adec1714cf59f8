"""Comparison of several encoders on the same pairs, with intervals and tests of the differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np

from simcse_kit.errors import ConfigError, DataError
from simcse_kit.evaluation.pair_set import PairSet, concatenate
from simcse_kit.evaluation.records import AVERAGE, STANDARD_TASKS, Intervals, TaskResult
from simcse_kit.evaluation.results import Report
from simcse_kit.evaluation.statistics.bootstrap import (
    LEVEL,
    RESAMPLES,
    Bootstrap,
    Interval,
    check_settings,
)
from simcse_kit.evaluation.statistics.cells import interval_cell, p_cell
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
from simcse_kit.utils.tables import Table, render_html

__all__ = [
    "Comparison",
    "Difference",
    "Verdict",
    "adjust",
    "compare_reports",
    "score_intervals",
    "verdict",
]

Verdict = Literal["better", "worse", "no difference shown"]


@dataclass(frozen=True)
class Difference:
    """The difference of a model from the first model, on one task or on the mean of the seven.

    Attributes:
        task: Name of the task, or ``Avg.``.
        model: Name of the model.
        difference: Points of Spearman x100, with the interval of the paired bootstrap.
        p: Two-sided p of the paired bootstrap; it agrees with the interval.
        adjusted: p after Holm's correction, over tasks and models; for the mean over models.
        williams: p of Williams' test; NaN for the mean.
        steiger: p of Steiger's Z; NaN for the mean.
        verdict: The conclusion at the level of the comparison.
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
    """The comparison of models with the first model.

    ``scores`` has the interval of each model, for each task, and for ``Avg.`` if it is defined.
    ``flips`` (the pairs that moved most, best first) and ``slices`` (scores by kind of pair) are
    for each model except the first. ``level`` is the confidence level of intervals and verdicts.
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
        """Return the differences of one model."""
        return [each for each in self.differences if each.model == model]

    def to_json(self) -> dict[str, Any]:
        """Return plain dicts and numbers; NaN becomes None."""
        document: dict[str, Any] = plain({"schema": 1} | asdict(self))
        return document

    def _repr_html_(self) -> str:
        """Return scores and differences as HTML tables, which notebooks show."""
        share = f"{100 * self.level:g} %"
        scores = [[task, *map(interval_cell, each)] for task, each in self.scores.items()]
        tests = [
            [
                each.task,
                each.model,
                interval_cell(each.difference, sign=True),
                p_cell(each.adjusted),
                each.verdict,
            ]
            for each in self.differences
        ]
        heads = ["task", "model", f"difference from {self.models[0]}", "Holm p", "verdict"]
        note = f"Spearman x100 with {share} bootstrap intervals, {self.resamples:,} resamples."
        tables = {
            "scores": replace(Table.of_text(["task", *self.models], scores), notes=(note,)),
            "differences": Table.of_text(heads, tests),
        }
        return "\n".join(render_html(table, label) for label, table in tables.items())


def score_intervals(
    report: Report,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
    progress: bool = False,
) -> Intervals:
    """Compute the confidence interval of each task's Spearman, and of the seven-task mean.

    Args:
        report: The result of an evaluation.
        resamples: Number of resamples of the stratified bootstrap.
        seed: Seed of the resampling.
        level: Confidence level.
        progress: Show a progress bar on stderr after two seconds, on a terminal.

    Raises:
        ConfigError: Too few resamples, or a level outside 0 to 1.
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
    """Compare every report with the first, on the same pairs.

    Args:
        reports: Reports of two or more encoders, with the same tasks.
        pairs: The subsets of every task, as
            :func:`~simcse_kit.evaluation.tasks.load.load_tasks` returns them; without them the
            result has no flips and no slices.
        resamples: Number of resamples of the paired, stratified bootstrap.
        seed: Seed of the resampling.
        level: Confidence level of intervals and verdicts.
        flips: Maximum number of improved, and of worsened, pairs to list.
        progress: Show progress bars on stderr after two seconds, on a terminal.

    Raises:
        ConfigError: Fewer than two reports, or fewer resamples than a verdict needs after Holm's
            correction.
        DataError: The reports are of different pairs.

    Examples:
        >>> from simcse_kit.evaluation.records import SubsetScore, TaskResult
        >>> def made(name, noise):
        ...     gold = np.arange(60.0)
        ...     cosines = gold + noise * np.sin(gold)
        ...     score = spearman(cosines, gold)
        ...     subsets = {"t": SubsetScore(score, score, 60)}
        ...     scores = (score, score, 60, score, score)
        ...     task = TaskResult("t", *scores, subsets, cosines, gold, (0, 60))
        ...     return Report(name, "mean", {"t": task}, None, None, {}, 0.0)
        >>> found = compare_reports([made("noisy", 40), made("clean", 5)], resamples=500)
        >>> [(each.model, each.verdict) for each in found.differences]
        [('clean', 'better')]
    """
    if len(reports) < 2:
        raise ConfigError("a comparison needs two or more reports; evaluate another encoder")
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
    found = {
        (task, number): bootstrap.difference(members, number, level=level)
        for number in range(1, len(reports))
        for task, members in groups.items()
    }
    adjusted = adjust({key: p for key, (_, p) in found.items()})
    differences = []
    for (task, number), (interval, p) in found.items():
        dependent = (math.nan, math.nan)
        if task != AVERAGE:
            dependent = _dependent_tests(tasks[task][number], tasks[task][0])
        conclusion = verdict(interval.estimate, adjusted[task, number], level)
        differences.append(
            Difference(
                task, names[number], interval, p, adjusted[task, number], *dependent, conclusion
            )
        )
    comparison = Comparison(names, scores, differences, level=level, resamples=resamples, seed=seed)
    if pairs is not None:
        whole = {name: concatenate(pairs[name], name) for name in tasks}
        for number, model in enumerate(names[1:], start=1):
            chosen = {name: (each[0], each[number]) for name, each in tasks.items()}
            comparison.flips[model] = flips_of(whole, chosen, flips)
            comparison.slices[model] = slice_scores(whole, chosen, seed, level, progress=progress)
    return comparison


def adjust(p_values: Mapping[tuple[str, int], float]) -> dict[tuple[str, int], float]:
    """Correct p-values by (task, model) with Holm's method, separately for tasks and the mean."""
    single = {key: p for key, p in p_values.items() if key[0] != AVERAGE}
    mean = {key: p for key, p in p_values.items() if key[0] == AVERAGE}
    return holm(single) | holm(mean)


def verdict(difference: float, p: float, level: float) -> Verdict:
    """Conclude from a difference and its adjusted p-value.

    Examples:
        >>> verdict(1.5, 0.01, level=0.95), verdict(1.5, 0.2, level=0.95)
        ('better', 'no difference shown')
    """
    if math.isnan(p) or p >= 1 - level:
        return "no difference shown"
    return "better" if difference > 0 else "worse"


def _groups(tasks: Mapping[str, object]) -> dict[str, list[str]]:
    """Map every task, and ``Avg.`` if all seven are there, to the tasks it is the mean of."""
    groups = {name: [name] for name in tasks}
    if all(name in tasks for name in STANDARD_TASKS):
        groups[AVERAGE] = list(STANDARD_TASKS)
    return groups


def _names(reports: Sequence[Report]) -> list[str]:
    """Return the names of the models, with a number added to repeated names."""
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


def _dependent_tests(model: TaskResult, first: TaskResult) -> tuple[float, float]:
    """Return the p-values of Williams' test and of Steiger's Z."""
    between = spearman(model.cosines, first.cosines) / 100
    figures = (model.spearman / 100, first.spearman / 100, between, model.pairs)
    if model.pairs < 4 or math.isnan(sum(figures)):
        return math.nan, math.nan
    return williams(*figures)[1], steiger(*figures)[1]
