"""Systems that were trained with several seeds each."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from simcse_kit.errors import DataError
from simcse_kit.evaluation.results import AVERAGE, Report
from simcse_kit.evaluation.statistics.bootstrap import LEVEL
from simcse_kit.evaluation.statistics.comparison import Verdict, verdict
from simcse_kit.evaluation.statistics.significance import PairedSeeds, holm, paired_seeds
from simcse_kit.utils.json import plain

__all__ = ["SeedDifference", "Systems", "check_seeds", "compare_systems"]


@dataclass(frozen=True)
class SeedDifference:
    """A system less the first one, seed by seed.

    Attributes:
        task: its name, or ``Avg.``.
        system: number of the system, from 1; the first has 0.
        paired: means, deviations, the difference with its interval, and p of the paired t-test.
        adjusted: p after Holm's correction, over tasks and systems; for ``Avg.`` over systems.
        verdict: what may be said at the level of the comparison.
    """

    task: str
    system: int
    paired: PairedSeeds
    adjusted: float
    verdict: Verdict


@dataclass(frozen=True)
class Systems:
    """What a comparison of systems over seeds found.

    Attributes:
        systems: the models of each, one a seed.
        scores: task, and ``Avg.`` -> for each system the score of each seed.
        differences: of every system but the first.
        level: of intervals; 1 less it is what an adjusted p must be below.
    """

    systems: list[list[str]]
    scores: dict[str, list[list[float]]]
    differences: list[SeedDifference]
    level: float

    def to_json(self) -> dict[str, Any]:
        """Plain dicts and numbers; NaN as None."""
        document: dict[str, Any] = plain({"schema": 1} | asdict(self))
        return document

    def mean(self, task: str, system: int) -> float:
        """Over the seeds."""
        return statistics.fmean(self.scores[task][system])

    def deviation(self, task: str, system: int) -> float:
        """Sample standard deviation over the seeds."""
        return statistics.stdev(self.scores[task][system])


def compare_systems(reports: Sequence[Sequence[Report]], *, level: float = LEVEL) -> Systems:
    """Mean and spread over seeds, and the paired t-test of each system against the first.

    The test says whether the training recipe is better, for other seeds as well; it takes the test
    pairs as given. Seed i of one system is paired with seed i of the other.

    Args:
        reports: for each system a report for each seed, all with the same tasks.
        level: of intervals and verdicts.

    Raises:
        DataError: systems with different numbers of seeds, fewer than two, or other tasks.
    """
    check_seeds([len(system) for system in reports])
    names = list(reports[0][0].tasks)
    if any(list(report.tasks) != names for system in reports for report in system):
        raise DataError("all encoders must be scored on the same tasks")
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
    adjusted: dict[str, float] = {}
    for is_mean in (False, True):
        part = {f"{n} {t}": test.p for (t, n), test in tests.items() if (t == AVERAGE) == is_mean}
        adjusted |= holm(part)
    differences = [
        SeedDifference(
            task=task,
            system=number,
            paired=test,
            adjusted=adjusted[f"{number} {task}"],
            verdict=verdict(test.difference, adjusted[f"{number} {task}"], level),
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
    """Refuse systems whose seeds cannot be paired.

    Args:
        counts: seeds of each system.

    Raises:
        DataError: they differ, or are fewer than two.
    """
    if len(set(counts)) > 1 or min(counts) < 2:
        raise DataError(
            f"systems with {', '.join(map(str, counts))} seeds cannot be paired; give as many of "
            "each, 2 or more, in the same order of seeds"
        )
