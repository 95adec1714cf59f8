"""Comparison of systems that were trained with several seeds each."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from simcse_kit.errors import DataError
from simcse_kit.evaluation.results import AVERAGE, Report
from simcse_kit.evaluation.statistics.bootstrap import LEVEL
from simcse_kit.evaluation.statistics.comparison import Verdict, adjust, verdict
from simcse_kit.evaluation.statistics.significance import PairedSeeds, paired_seeds
from simcse_kit.utils.json import plain

__all__ = ["SeedDifference", "Systems", "check_seeds", "compare_systems"]


@dataclass(frozen=True)
class SeedDifference:
    """The difference of system number ``system`` from system 0, seed by seed.

    ``adjusted`` is p after Holm's correction, over tasks and systems; for ``Avg.`` over systems.
    """

    task: str
    system: int
    paired: PairedSeeds
    adjusted: float
    verdict: Verdict


@dataclass(frozen=True)
class Systems:
    """A comparison of systems over seeds.

    ``systems`` has the names of each system's models, one for each seed; ``scores`` the scores of
    each system's seeds, for each task and ``Avg.``.
    """

    systems: list[list[str]]
    scores: dict[str, list[list[float]]]
    differences: list[SeedDifference]
    level: float

    def to_json(self) -> dict[str, Any]:
        """Return plain dicts and numbers; NaN becomes None."""
        document: dict[str, Any] = plain({"schema": 1} | asdict(self))
        return document

    def mean(self, task: str, system: int) -> float:
        """Average a system's scores over the seeds."""
        return statistics.fmean(self.scores[task][system])

    def deviation(self, task: str, system: int) -> float:
        """Return the sample standard deviation over the seeds."""
        return statistics.stdev(self.scores[task][system])


def compare_systems(reports: Sequence[Sequence[Report]], *, level: float = LEVEL) -> Systems:
    """Compare each system with the first by a paired t-test over seeds.

    The test shows whether the training recipe is better for other seeds as well, on these test
    pairs. Seed i of one system is paired with seed i of the other.

    Args:
        reports: For each system a report for each seed, all with the same tasks.
        level: Confidence level of intervals and verdicts.

    Raises:
        DataError: The systems have different numbers of seeds, fewer than two, or different tasks.
    """
    check_seeds([len(system) for system in reports])
    names = list(reports[0][0].tasks)
    if any(list(report.tasks) != names for system in reports for report in system):
        raise DataError(
            "the encoders were scored on different tasks; evaluate all of them on the same tasks"
        )
    scores = {
        name: [[report.tasks[name].spearman for report in system] for system in reports]
        for name in names
    }
    averages = [[report.average for report in system] for system in reports]
    if all(value is not None for system in averages for value in system):
        scores[AVERAGE] = [[float(value or 0) for value in system] for system in averages]
    tests = {
        (task, number): paired_seeds(each[number], each[0], level=level)
        for task, each in scores.items()
        for number in range(1, len(reports))
    }
    adjusted = adjust({key: test.p for key, test in tests.items()})
    differences = [
        SeedDifference(
            task=task,
            system=number,
            paired=test,
            adjusted=adjusted[task, number],
            verdict=verdict(test.difference, adjusted[task, number], level),
        )
        for (task, number), test in tests.items()
    ]
    return Systems(
        systems=[[report.model for report in system] for system in reports],
        scores=scores,
        differences=differences,
        level=level,
    )


def check_seeds(counts: Sequence[int]) -> None:
    """Check that systems with these numbers of seeds can be paired.

    Raises:
        DataError: The numbers differ, or are below two.
    """
    if len(set(counts)) > 1 or min(counts) < 2:
        raise DataError(
            f"systems with {', '.join(map(str, counts))} seeds cannot be paired; give the same "
            "number of each, 2 or more, in the same order of seeds"
        )
