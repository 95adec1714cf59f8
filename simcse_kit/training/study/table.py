"""The rows of a study: mean and spread over the seeds of each method."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from simcse_kit.training.study.runs import FIGURES, RunRecord

__all__ = ["Row", "rows_of", "text_table"]

_HEADS = {
    "dev_spearman": ("dev Spearman x100", 2),
    "alignment": ("alignment", 3),
    "uniformity": ("uniformity", 3),
    "effective_rank": ("effective rank", 1),
    "sentences_per_second": ("sentences/s", 0),
    "peak_mb": ("peak MB", 0),
}


@dataclass(frozen=True)
class Row:
    """One method over its seeds.

    Attributes:
        method: label.
        values: what each seed gave, by name of the figure.
        seeds: runs that were made.
        failed: why runs failed.
    """

    method: str
    values: dict[str, list[float]]
    seeds: int
    failed: tuple[str, ...]

    def mean(self, figure: str) -> float | None:
        """Over the seeds that have it; None where none has."""
        found = self.values.get(figure)
        return statistics.fmean(found) if found else None

    def deviation(self, figure: str) -> float | None:
        """Sample standard deviation over the seeds; None for fewer than two."""
        found = self.values.get(figure, [])
        return statistics.stdev(found) if len(found) > 1 else None

    def to_json(self) -> dict[str, Any]:
        """For study.json."""
        means = {name: self.mean(name) for name in self.values}
        deviations = {name: self.deviation(name) for name in self.values}
        return {
            "method": self.method,
            "seeds": self.seeds,
            "mean": means,
            "standard_deviation": deviations,
            "failed": list(self.failed),
        }


def rows_of(records: Sequence[RunRecord]) -> list[Row]:
    """A row a method: those that were trained by falling dev score, then the untrained encoder."""
    rows = []
    for label in dict.fromkeys(record.method for record in records):
        runs = [record for record in records if record.method == label]
        values = {
            name: [run.figures[name] for run in runs if name in run.figures] for name in FIGURES
        }
        failed = tuple(dict.fromkeys(run.failed for run in runs if run.failed is not None))
        rows.append(Row(label, {k: v for k, v in values.items() if v}, len(runs), failed))
    start = [row for row in rows if "sentences_per_second" not in row.values and not row.failed]
    trained = [row for row in rows if row not in start]

    def rank(row: Row) -> float:
        mean = row.mean("dev_spearman")
        return float("inf") if mean is None else -mean

    return sorted(trained, key=rank) + start


def text_table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table; mean ± sample standard deviation."""
    lines = ["| method | seeds | " + " | ".join(head for head, _ in _HEADS.values()) + " |"]
    lines.append("|---|---|" + "---|" * len(_HEADS))
    for row in rows:
        cells = [_cell(row, name, digits) for name, (_, digits) in _HEADS.items()]
        lines.append(f"| {row.method} | {row.seeds} | {' | '.join(cells)} |")
    lines += [f"\n{row.method} failed: {reason}" for row in rows for reason in row.failed]
    return "\n".join(lines)


def _cell(row: Row, figure: str, digits: int) -> str:
    mean, deviation = row.mean(figure), row.deviation(figure)
    if mean is None:
        return "-"
    spread = "" if deviation is None or figure == "peak_mb" else f" ± {deviation:.{digits}f}"
    return f"{mean:.{digits}f}{spread}"
