"""The table of a study: mean and spread over the seeds of each method."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from simcse_kit.training.study.runs import FIGURES, RunRecord
from simcse_kit.utils.tables import Table, render_markdown

__all__ = ["StudyRow", "rows_of", "text_table"]

_HEADS = {
    "dev_spearman": ("dev Spearman x100", 2),
    "alignment": ("alignment", 3),
    "uniformity": ("uniformity", 3),
    "effective_rank": ("effective rank", 1),
    "sentences_per_second": ("sentences/s", 0),
    "peak_mb": ("peak MB", 0),
}


@dataclass(frozen=True)
class StudyRow:
    """One method over its seeds.

    Attributes:
        method: Label of the method.
        values: The values of all seeds, by name of the figure.
        seeds: Number of runs.
        failed: The distinct reasons why runs failed.
    """

    method: str
    values: dict[str, list[float]]
    seeds: int
    failed: tuple[str, ...]

    def mean(self, figure: str) -> float | None:
        """Average a figure over the seeds that have it; None if no seed has it."""
        found = self.values.get(figure)
        return statistics.fmean(found) if found else None

    def deviation(self, figure: str) -> float | None:
        """Return the sample standard deviation over the seeds; None for fewer than two."""
        found = self.values.get(figure, [])
        return statistics.stdev(found) if len(found) > 1 else None

    def to_json(self) -> dict[str, Any]:
        """Return the form in study.json."""
        means = {name: self.mean(name) for name in self.values}
        deviations = {name: self.deviation(name) for name in self.values}
        return {
            "method": self.method,
            "seeds": self.seeds,
            "mean": means,
            "standard_deviation": deviations,
            "failed": list(self.failed),
        }


def rows_of(records: Sequence[RunRecord]) -> list[StudyRow]:
    """Make a row for each method, best mean dev score first, the untrained encoder last."""
    rows = []
    for label in dict.fromkeys(record.method for record in records):
        runs = [record for record in records if record.method == label]
        values = {
            name: [run.figures[name] for run in runs if name in run.figures] for name in FIGURES
        }
        failed = tuple(dict.fromkeys(run.failed for run in runs if run.failed is not None))
        rows.append(StudyRow(label, {k: v for k, v in values.items() if v}, len(runs), failed))
    start = [row for row in rows if "sentences_per_second" not in row.values and not row.failed]
    trained = [row for row in rows if row not in start]

    def rank(row: StudyRow) -> float:
        mean = row.mean("dev_spearman")
        return float("inf") if mean is None else -mean

    return sorted(trained, key=rank) + start


def text_table(rows: Sequence[StudyRow]) -> str:
    """Render the rows as a Markdown table of means ± sample standard deviations."""
    heads = ["method", "seeds", *(head for head, _ in _HEADS.values())]
    lines = [
        [
            row.method,
            str(row.seeds),
            *(_cell(row, name, digits) for name, (_, digits) in _HEADS.items()),
        ]
        for row in rows
    ]
    failures = [f"{row.method} failed: {reason}" for row in rows for reason in row.failed]
    return "\n\n".join([render_markdown(Table.of_text(heads, lines), raw=True), *failures])


def _cell(row: StudyRow, figure: str, digits: int) -> str:
    mean, deviation = row.mean(figure), row.deviation(figure)
    if mean is None:
        return "-"
    spread = "" if deviation is None or figure == "peak_mb" else f" ± {deviation:.{digits}f}"
    return f"{mean:.{digits}f}{spread}"
