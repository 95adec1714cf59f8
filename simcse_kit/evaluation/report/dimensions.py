"""The scores of the first dimensions of one encoder: a table and a figure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from simcse_kit.evaluation.report import svg
from simcse_kit.evaluation.report.curves import Panel
from simcse_kit.evaluation.report.numbers import counted, fixed, is_number, number
from simcse_kit.evaluation.results import Report
from simcse_kit.utils.tables import Row, Table

__all__ = ["dimension_panel", "dimension_table", "is_sweep"]

_UNDEFINED = "The score is undefined for these vectors."


def is_sweep(reports: Sequence[Report]) -> bool:
    """Return whether the reports are of several numbers of dimensions of one encoder."""
    return len({report.dimensions for report in reports} - {None}) > 1


def dimension_table(reports: Sequence[Report]) -> Table | None:
    """Tabulate the main score of every task by the number of dimensions; None without a sweep."""
    if not is_sweep(reports):
        return None
    names, scores = _scores(reports)
    several = len(names) > 1
    rows = [
        Row(
            counted(report.dimensions or 0),
            tuple(number(value, reason=_UNDEFINED) for value in [*line, *[_mean(line)][:several]]),
        )
        for report, line in zip(reports, scores, strict=True)
    ]
    return Table((*names, *["Mean"][:several]), tuple(rows), head="Dimensions")


def dimension_panel(reports: Sequence[Report]) -> Panel | None:
    """Draw the scores over the number of dimensions; None without a sweep or without a score."""
    if not is_sweep(reports):
        return None
    sizes = np.array([report.dimensions or 0 for report in reports])
    order = np.argsort(sizes)
    scores = np.array(_scores(reports)[1], dtype=np.float64)[order]
    sizes, means = sizes[order], [_mean(line) for line in scores.tolist()]
    known = [(size, mean) for size, mean in zip(sizes.tolist(), means, strict=True) if mean]
    if len(known) < 2:
        return None

    def draw(figure: Figure) -> None:
        pane = svg.axes(figure, left=66, right=14, bottom=40, top=16)
        pane.set_xscale("log", base=2)
        pane.set_xticks(sizes, [str(size) for size in sizes])
        pane.set_xticks([], minor=True)
        pane.grid(axis="x", visible=False)
        pane.set_xlabel("dimensions")
        pane.set_ylabel("mean score x100" if scores.shape[1] > 1 else "score x100")
        if scores.shape[1] > 1:
            pane.plot(sizes, scores, color=svg.MUTED, linewidth=0.9, alpha=0.6)
        xs, ys = zip(*known, strict=True)
        pane.plot(xs, ys, color=svg.SERIES[1], linewidth=2.4, marker="o", markersize=6)

    (first, low), (last, high) = known[0], known[-1]
    several = scores.shape[1] > 1
    caption = (
        f"{'Mean of the scores' if several else 'Score'}: {fixed(low)} with {counted(first)} "
        f"dimensions, {fixed(high)} with {counted(last)}."
    )
    if several:
        caption += " Thin lines: the tasks."
    label = f"Scores against the number of dimensions. {caption}"
    figure = svg.render(draw, key="dimensions", label=label, size=(520, 260))
    return Panel("Scores by the number of dimensions", figure, caption)


def _scores(reports: Sequence[Report]) -> tuple[list[str], list[list[float]]]:
    """Return the names of the tasks, and for each report their main scores x100."""
    first = reports[0]
    names = [*first.tasks, *first.beyond_sts]
    return names, [
        [
            *(result.spearman for result in report.tasks.values()),
            *(score.metrics[score.main] for score in report.beyond_sts.values()),
        ]
        for report in reports
    ]


def _mean(scores: Sequence[float]) -> float | None:
    return float(np.mean(scores)) if scores and all(map(is_number, scores)) else None
