"""The result of an evaluation, as a record, as versioned JSON and as a table for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from simcse_kit.evaluation.records import (
    AVERAGE,
    STANDARD_TASKS,
    TRANSFER_TASKS,
    Exhibit,
    Geometry,
    Intervals,
    Miss,
    SentenceMap,
    SubsetScore,
    TaskResult,
    TaskScore,
)
from simcse_kit.evaluation.score_lines import (
    decimal,
    geometry_lines,
    sts_lines,
    task_lines,
)
from simcse_kit.utils.json import plain
from simcse_kit.utils.printable import one_line
from simcse_kit.utils.tables import Table, render_html, render_text

if TYPE_CHECKING:
    from simcse_kit.encoder.token_counts import TokenCounts

__all__ = [
    "AVERAGE",
    "REPORT_FILES",
    "SCHEMA",
    "STANDARD_TASKS",
    "TRANSFER_TASKS",
    "Exhibit",
    "Geometry",
    "Intervals",
    "Miss",
    "Report",
    "SentenceMap",
    "SubsetScore",
    "TaskResult",
    "TaskScore",
    "side_by_side",
]

REPORT_FILES = ("report.html", "report.md", "report.json")
"""Files of a report page."""

SCHEMA = 1
"""Version of the JSON form; raised when a key changes its meaning or is removed."""

# Characters in a line of the terminal.
_WIDTH = 100

_TASK_KEYS = ("spearman", "pearson", "pairs", "mean", "wmean")
_MEASURES = ("alignment", "uniformity", "mean_cosine", "dimension_std", "effective_rank")
_GEOMETRY_KEYS = (
    "source",
    "positives",
    "sentences",
    "iso_score",
    "tolerance",
    "hubness",
    "neighbours_found",
)
_SCORE_KEYS = ("kind", "main", "metrics", "counts", "protocol")


@dataclass(frozen=True)
class Report:
    """Everything that one evaluation found.

    ``average`` is the mean of the unrounded "all" Spearman of the seven standard tasks, and None
    unless all seven were evaluated. ``seconds`` is the wall time of the evaluation. ``beyond_sts``
    has the tasks other than STS by name. ``intervals`` and ``exhibit`` (sentences and data for the
    report page) are None if they were not requested; ``tokens`` is what tokenizing loses of the
    distinct sentences, None if it is not known. ``dimensions`` is the number of first dimensions
    that were scored, None for all.
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
    dimensions: int | None = None

    @property
    def transfer_average(self) -> float | None:
        """Mean accuracy x100 of the seven transfer tasks; None unless all were evaluated."""
        if any(task not in self.beyond_sts for task in TRANSFER_TASKS):
            return None
        return float(
            np.mean([self.beyond_sts[task].metrics["accuracy"] for task in TRANSFER_TASKS])
        )

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form (schema 1): plain dicts and numbers; NaN and infinity become None.

        Five measures of the geometry are at the top level (None if it was not computed);
        ``"geometry"`` holds the other measures, and what they were measured on.
        """
        shape, found = self.geometry, self.intervals
        document: dict[str, Any] = plain(
            {
                "schema": SCHEMA,
                "model": self.model,
                "pooling": self.pooling,
                "tasks": {
                    name: _picked(task, _TASK_KEYS)
                    | {"subsets": {key: vars(score) for key, score in task.subsets.items()}}
                    for name, task in self.tasks.items()
                },
                "average": self.average,
                **(dict.fromkeys(_MEASURES) if shape is None else _picked(shape, _MEASURES)),
                "geometry": shape
                and _picked(shape, _GEOMETRY_KEYS)
                | {"spectrum": [float(f"{share:.6g}") for share in shape.spectrum]},
                "intervals": found
                and _picked(found, ("level", "resamples", "seed"))
                | {"scores": {key: [one.low, one.high] for key, one in found.scores.items()}},
                "beyond_sts": {
                    name: _picked(score, _SCORE_KEYS) for name, score in self.beyond_sts.items()
                },
                "transfer_average": self.transfer_average,
                "exhibit": self.exhibit and self.exhibit.to_json(),
                "tokens": self.tokens and self.tokens.to_json(),
                "versions": self.versions,
                "seconds": self.seconds,
            }
        )
        if self.dimensions is not None:
            document["dimensions"] = self.dimensions
        return document

    def table(self) -> str:
        """Return a text table for a terminal, with a description of the protocol below."""
        parts = [f"{one_line(self.model)}   pooling: {one_line(self.pooling)}"]
        if self.tasks:
            parts += ["", *sts_lines(list(self.tasks.values()), self.intervals, _WIDTH)]
        bounds = ""
        if self.intervals is not None:
            count = f"{self.intervals.resamples:,}"
            parts += [f"Intervals: BCa bootstrap, {count} resamples of the pairs of each subset."]
            if self.average is not None:
                interval = self.intervals.scores[AVERAGE]
                bounds = f" [{decimal(interval.low)}, {decimal(interval.high)}]"
        if self.average is not None:
            mean = decimal(self.average)
            parts += [f"Average of the seven tasks (Spearman all): {mean}{bounds}"]
        for score in self.beyond_sts.values():
            parts += ["", *task_lines(score)]
        if self.transfer_average is not None:
            mean = decimal(self.transfer_average)
            parts += [f"Average of the seven transfer tasks (accuracy): {mean}"]
        if self.geometry is not None:
            parts += geometry_lines(self.geometry)
        return "\n".join(parts)

    def _repr_html_(self) -> str:
        """Return the scores as an HTML table, which notebooks show."""
        known = {} if self.intervals is None else self.intervals.scores
        bounds = {name: f"[{decimal(at.low)}, {decimal(at.high)}]" for name, at in known.items()}
        rows = [
            [
                name,
                "Spearman",
                decimal(task.spearman),
                bounds.get(name, ""),
                f"{task.pairs:,} pairs",
            ]
            for name, task in self.tasks.items()
        ]
        if self.average is not None:
            rows.append([AVERAGE, "Spearman", decimal(self.average), bounds.get(AVERAGE, ""), ""])
        for name, task in self.beyond_sts.items():
            counts = ", ".join(f"{count:,} {what}" for what, count in task.counts.items())
            rows.append([name, task.main, decimal(task.metrics[task.main]), "", counts])
        if self.transfer_average is not None:
            mean = decimal(self.transfer_average)
            rows.append(["transfer average", "accuracy", mean, "", ""])
        share = "" if self.intervals is None else f"{100 * self.intervals.level:g} % "
        heads = ["task", "measure", "score x100", f"{share}interval", "data"]
        used = [at for at in range(len(heads)) if at != 3 or known]
        cells = [[row[at] for at in used] for row in rows]
        table = Table.of_text([heads[at] for at in used], cells)
        title = f"{self.model}, pooling {self.pooling}"
        return str(render_html(replace(table, notes=(title,)), "scores"))


def side_by_side(reports: Sequence[Report]) -> str:
    """Render several models as text: a row for each, with the score of every task."""
    names = dict.fromkeys(name for report in reports for name in report.tasks)
    others = dict.fromkeys(name for report in reports for name in report.beyond_sts)
    measures = {"alignment": "alignment", "uniformity": "uniformity", "IsoScore": "iso_score"}
    lines = [["", *names, AVERAGE, *others, *measures]]
    for report in reports:
        scores = [report.tasks[name].spearman if name in report.tasks else None for name in names]
        scores.append(report.average)
        for name in others:
            found = report.beyond_sts.get(name)
            scores.append(found.metrics[found.main] if found else None)
        shape = [getattr(report.geometry, key, None) for key in measures.values()]
        cells = [*map(decimal, scores), *(decimal(value, 4) for value in shape)]
        lines.append([report.model, *cells])
    known = [at == 0 or {line[at] for line in lines[1:]} != {"-"} for at in range(len(lines[0]))]
    heads, *rows = [
        [cell for cell, keep in zip(line, known, strict=True) if keep] for line in lines
    ]
    return render_text(Table.of_text(heads, rows), width=_WIDTH)


def _picked(record: object, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(record, name) for name in names}
