"""What an evaluation gives back: plain records, a JSON form with a version, and a text table.

Correlations are multiplied by 100 and kept unrounded; NaN stands for "undefined" (a constant side)
and becomes ``null`` in JSON.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from simcse_kit.evaluation.statistics.bootstrap import Interval

if TYPE_CHECKING:
    from simcse_kit.encoder.token_counts import TokenCounts
    from simcse_kit.evaluation.report.details import Exhibit

__all__ = [
    "AVERAGE",
    "REPORT_FILES",
    "SCHEMA",
    "STANDARD_TASKS",
    "TRANSFER_TASKS",
    "Geometry",
    "Intervals",
    "Report",
    "SubsetScore",
    "TaskResult",
    "TaskScore",
]

AVERAGE = "Avg."
"""What the mean of the seven tasks goes by beside their names."""

REPORT_FILES = ("report.html", "report.md", "report.json")
"""What a report page consists of."""

SCHEMA = 1
"""Version of the JSON form; raised whenever a key changes its meaning or goes away."""

STANDARD_TASKS = ("STS12", "STS13", "STS14", "STS15", "STS16", "STSB", "SICKR")
"""The seven tasks whose mean is the usual "Avg." column (arXiv 2104.08821, table 5)."""

TRANSFER_TASKS = ("MR", "CR", "SUBJ", "MPQA", "SST2", "TREC", "MRPC")
"""SentEval's seven transfer tasks, in the order of the papers (arXiv 1803.05449)."""


@dataclass(frozen=True)
class SubsetScore:
    """Correlations x100 over the ``pairs`` scored pairs of one subset; NaN where undefined."""

    spearman: float
    pearson: float
    pairs: int


@dataclass(frozen=True)
class TaskResult:
    """One task.

    ``spearman`` and ``pearson`` are taken over the concatenation of all subsets ("all");
    ``mean`` and ``wmean`` are the plain and the pair-weighted mean of the subsets' Spearman.
    ``cosines`` (float64, in [-1, 1]) and ``gold`` (on ``scale``) hold one value a pair, in the
    order of ``subsets``.
    """

    name: str
    spearman: float
    pearson: float
    pairs: int
    mean: float
    wmean: float
    subsets: dict[str, SubsetScore]
    cosines: np.ndarray
    gold: np.ndarray
    scale: tuple[float, float]


@dataclass(frozen=True)
class TaskScore:
    """One task beside STS.

    ``kind`` is "transfer", "paraphrase", "retrieval" or "clustering"; ``metrics`` holds its
    figures (shares x100; NaN where undefined), of which ``main`` names the one to quote; ``counts``
    says on how much they were taken, and ``protocol``, in words, how.
    """

    name: str
    kind: str
    main: str
    metrics: dict[str, float]
    counts: dict[str, int]
    protocol: str


@dataclass(frozen=True)
class Geometry:
    """The shape of the embedding cloud; ``source`` says which pairs and sentences it was taken on.

    ``alignment`` is taken over ``positives`` pairs (NaN where there is none), the rest over
    ``sentences`` distinct sentences. See :mod:`simcse_kit.metrics.geometry`.
    ``iso_score`` and ``spectrum`` (shares of the variance along the principal axes, largest first):
    :mod:`simcse_kit.metrics.spectrum`. ``tolerance`` is the mean cosine of the positive pairs
    (Wang and Liu 2021, arXiv 2012.09740, equation 14, with graded positives for its classes).
    ``hubness`` and ``neighbours_found`` (of the positives, among the 10 nearest):
    :mod:`simcse_kit.evaluation.neighbours`.
    """

    alignment: float
    uniformity: float
    mean_cosine: float
    dimension_std: float
    effective_rank: float
    positives: int
    sentences: int
    source: str
    iso_score: float = math.nan
    tolerance: float = math.nan
    hubness: float = math.nan
    neighbours_found: float = math.nan
    spectrum: tuple[float, ...] = ()


@dataclass(frozen=True)
class Intervals:
    """How sure the Spearman of each task is, and of the seven-task mean as ``Avg.``.

    ``level`` is the share of such intervals that hold the true value; they are BCa intervals of a
    bootstrap with so many ``resamples`` and ``seed``, stratified by subset.
    """

    scores: dict[str, Interval]
    level: float
    resamples: int
    seed: int


@dataclass(frozen=True)
class Report:
    """All that one evaluation found.

    ``average`` is the mean of the unrounded "all" Spearman of the seven standard tasks, and None
    unless all seven are there. ``seconds`` is the wall time of the whole evaluation. ``intervals``
    is None where none were asked for. ``beyond_sts`` holds the tasks beside STS, by name;
    ``exhibit`` what a report shows of the sentences, None where that was not asked for;
    ``tokens`` what tokenizing loses of all distinct sentences, None where that is not known.
    """

    model: str
    pooling: str
    tasks: dict[str, TaskResult]
    average: float | None
    geometry: Geometry | None
    versions: dict[str, str]
    seconds: float
    intervals: Intervals | None = None
    beyond_sts: dict[str, TaskScore] = field(default_factory=dict)
    exhibit: Exhibit | None = None
    tokens: TokenCounts | None = None

    @property
    def transfer_average(self) -> float | None:
        """Mean accuracy x100 of SentEval's seven transfer tasks; None unless all are there."""
        if any(task not in self.beyond_sts for task in TRANSFER_TASKS):
            return None
        return float(
            np.mean([self.beyond_sts[task].metrics["accuracy"] for task in TRANSFER_TASKS])
        )

    def to_json(self) -> dict[str, Any]:
        """The JSON form (schema 1): plain dicts and numbers, NaN and infinities as None.

        Five numbers of the geometry stand at the top level (None where it was not computed);
        ``"geometry"`` holds the others, with ``source``, ``positives`` and ``sentences``.
        """
        shape = self.geometry
        return {
            "schema": SCHEMA,
            "model": self.model,
            "pooling": self.pooling,
            "tasks": {name: _task_json(task) for name, task in self.tasks.items()},
            "average": _number(self.average),
            **{key: _number(None if shape is None else getattr(shape, key)) for key in _MEASURES},
            "geometry": None if shape is None else _geometry_json(shape),
            "intervals": None if self.intervals is None else _intervals_json(self.intervals),
            "beyond_sts": {name: _score_json(score) for name, score in self.beyond_sts.items()},
            "transfer_average": _number(self.transfer_average),
            "exhibit": None if self.exhibit is None else self.exhibit.to_json(),
            "tokens": None if self.tokens is None else self.tokens.to_json(),
            "versions": dict(self.versions),
            "seconds": _number(self.seconds),
        }

    def table(self) -> str:
        """A plain text table for a terminal, with the protocol named below it."""
        from simcse_kit.evaluation.table import render

        return render(self)


_MEASURES = ("alignment", "uniformity", "mean_cosine", "dimension_std", "effective_rank")
_MORE_MEASURES = ("iso_score", "tolerance", "hubness", "neighbours_found")
_COUNTS = ("source", "positives", "sentences")


def _number(value: float | None) -> float | None:
    """A JSON number, or None where there is none to give."""
    return None if value is None or not math.isfinite(value) else float(value)


def _subset_json(score: SubsetScore) -> dict[str, Any]:
    return {
        "spearman": _number(score.spearman),
        "pearson": _number(score.pearson),
        "pairs": score.pairs,
    }


def _geometry_json(shape: Geometry) -> dict[str, Any]:
    found: dict[str, Any] = {key: getattr(shape, key) for key in _COUNTS}
    found |= {key: _number(getattr(shape, key)) for key in _MORE_MEASURES}
    return found | {"spectrum": [float(f"{share:.6g}") for share in shape.spectrum]}


def _intervals_json(found: Intervals) -> dict[str, Any]:
    return {
        "level": found.level,
        "resamples": found.resamples,
        "seed": found.seed,
        "scores": {
            name: [_number(interval.low), _number(interval.high)]
            for name, interval in found.scores.items()
        },
    }


def _score_json(score: TaskScore) -> dict[str, Any]:
    return {
        "kind": score.kind,
        "main": score.main,
        "metrics": {name: _number(value) for name, value in score.metrics.items()},
        "counts": dict(score.counts),
        "protocol": score.protocol,
    }


def _task_json(task: TaskResult) -> dict[str, Any]:
    return {
        "spearman": _number(task.spearman),
        "pearson": _number(task.pearson),
        "pairs": task.pairs,
        "mean": _number(task.mean),
        "wmean": _number(task.wmean),
        "subsets": {name: _subset_json(score) for name, score in task.subsets.items()},
    }
