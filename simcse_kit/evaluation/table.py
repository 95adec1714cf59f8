"""The text table of a report."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from simcse_kit.evaluation.results import AVERAGE
from simcse_kit.utils.printable import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simcse_kit.evaluation.results import Geometry, Intervals, Report, TaskResult, TaskScore
    from simcse_kit.evaluation.statistics.bootstrap import Interval

__all__ = ["render", "render_side_by_side"]

_WIDTH = 100
_GAP = "  "
_ROWS = ("Spearman all", "Spearman mean", "Spearman wmean", "Pearson all", "pairs")


def render(report: Report) -> str:
    """The report as lines of at most 100 characters, unless a single name is longer.

    One column a task; where the columns do not fit side by side they are broken into blocks.
    """
    parts = [f"{one_line(report.model)}   pooling: {one_line(report.pooling)}"]
    found = report.intervals
    labels = ["", *_ROWS] if found is None else ["", _ROWS[0], *_bound_labels(found), *_ROWS[1:]]
    if report.tasks:
        columns = [_column(task, report) for task in report.tasks.values()]
        parts += [
            "",
            *_blocks(labels, columns),
            "",
            "Protocol: cosine of the embeddings, no regressor; correlations x100 over all pairs of",
            'a task ("all"); mean and wmean = plain and pair-weighted mean over its subsets.',
        ]
    if found is not None:
        parts += [
            f"Intervals: BCa bootstrap, {found.resamples:,} resamples of the pairs of each subset."
        ]
    if report.average is not None:
        bounds = "" if found is None else _bracket(found.scores[AVERAGE])
        parts += [f"Average of the seven tasks (Spearman all): {_score(report.average)}{bounds}"]
    for score in report.beyond_sts.values():
        parts += ["", *_beyond(score)]
    if report.transfer_average is not None:
        mean = _score(report.transfer_average)
        parts += [f"Average of the seven transfer tasks (accuracy): {mean}"]
    if report.geometry is not None:
        parts += _geometry(report.geometry)
    return "\n".join(parts)


def render_side_by_side(reports: Sequence[Report]) -> str:
    """A row a model: the quoted figure of every task, the averages, and the main geometry."""
    names = dict.fromkeys(name for report in reports for name in report.tasks)
    beyond_sts = dict.fromkeys(name for report in reports for name in report.beyond_sts)
    head = [
        "",
        *map(one_line, names),
        AVERAGE,
        *map(one_line, beyond_sts),
        "alignment",
        "uniformity",
        "IsoScore",
    ]
    lines = [head]
    for report in reports:
        shape, average = report.geometry, report.average
        cells = [one_line(report.model)]
        cells += [
            _score(report.tasks[name].spearman) if name in report.tasks else "-" for name in names
        ]
        cells.append("-" if average is None else _score(average))
        for name in beyond_sts:
            found = report.beyond_sts.get(name)
            cells.append("-" if found is None else _score(found.metrics[found.main]))
        measures = (shape.alignment, shape.uniformity, shape.iso_score) if shape else ()
        lines.append(cells + ([_score(value, 4) for value in measures] or ["-"] * 3))
    columns = [list(column) for column in zip(*lines, strict=True)]
    keep = [n for n, column in enumerate(columns) if n == 0 or set(column[1:]) != {"-"}]
    return "\n".join(_blocks(columns[0], [columns[n] for n in keep[1:]]))


def _score(value: float, digits: int = 2) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _bracket(interval: Interval) -> str:
    return f" [{_score(interval.low)}, {_score(interval.high)}]"


def _bound_labels(found: Intervals) -> tuple[str, str]:
    return f"  {100 * found.level:g} % from", "  to"


def _column(task: TaskResult, report: Report) -> list[str]:
    cells = [
        one_line(task.name),
        *map(_score, (task.spearman, task.mean, task.wmean, task.pearson)),
    ]
    if report.intervals is not None:
        interval = report.intervals.scores[task.name]
        cells[2:2] = [_score(interval.low), _score(interval.high)]
    return [*cells, f"{task.pairs}"]


def _blocks(labels: list[str], columns: list[list[str]]) -> list[str]:
    """Lay columns side by side, each right-aligned, as many a block as the width allows."""
    left = max(map(len, labels))
    labels = [label.ljust(left) for label in labels]
    lines: list[str] = []
    block: list[list[str]] = [labels]
    used = left
    for column in columns:
        width = max(map(len, column))
        if len(block) > 1 and used + len(_GAP) + width > _WIDTH:
            lines += [*_block(block), ""]
            block, used = [labels], left
        block.append([cell.rjust(width) for cell in column])
        used += len(_GAP) + width
    return lines + _block(block) if len(block) > 1 else lines


def _block(columns: list[list[str]]) -> list[str]:
    return [_GAP.join(cells) for cells in zip(*columns, strict=True)]


def _beyond(score: TaskScore) -> list[str]:
    """Name, figures, counts and protocol of a task beside STS; the figure to quote comes first."""
    names = [score.main, *(name for name in score.metrics if name != score.main)]
    figures = "   ".join(f"{name} {_score(score.metrics[name])}" for name in names)
    counts = ", ".join(f"{count:,} {what}" for what, count in score.counts.items())
    return [f"{one_line(score.name)}: {figures}", f"  {counts}; {score.protocol}"]


def _geometry(shape: Geometry) -> list[str]:
    return [
        f"Geometry on {one_line(shape.source)}:",
        f"  alignment {_score(shape.alignment, 4)}   uniformity {_score(shape.uniformity, 4)}   "
        f"mean cosine {_score(shape.mean_cosine, 4)}   "
        f"dimension std {_score(shape.dimension_std, 4)}   "
        f"effective rank {_score(shape.effective_rank, 1)}",
        f"  IsoScore {_score(shape.iso_score, 4)}   tolerance {_score(shape.tolerance, 4)}   "
        f"hubness {_score(shape.hubness)}   "
        f"positives among the 10 nearest {_score(100 * shape.neighbours_found, 1)} %",
    ]
