"""The scores of an evaluation as lines for a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from simcse_kit.evaluation.records import Geometry, Intervals, TaskResult, TaskScore
from simcse_kit.utils.printable import one_line
from simcse_kit.utils.tables import Table, render_text

__all__ = ["decimal", "geometry_lines", "sts_lines", "task_lines"]


def decimal(value: float | None, digits: int = 2) -> str:
    """Format a number; a dash if it is undefined or missing."""
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def sts_lines(tasks: Sequence[TaskResult], found: Intervals | None, width: int) -> list[str]:
    """List the scores of STS tasks, one column each, in blocks of at most ``width`` characters."""
    rows = [["Spearman all", *(decimal(task.spearman) for task in tasks)]]
    if found is not None:
        sure = [found.scores[task.name] for task in tasks]
        rows.append([f"  {100 * found.level:g} % from", *(decimal(one.low) for one in sure)])
        rows.append(["  to", *(decimal(one.high) for one in sure)])
    rows += [
        ["Spearman mean", *(decimal(task.mean) for task in tasks)],
        ["Spearman wmean", *(decimal(task.wmean) for task in tasks)],
        ["Pearson all", *(decimal(task.pearson) for task in tasks)],
        ["pairs", *(str(task.pairs) for task in tasks)],
    ]
    return [
        render_text(Table.of_text(["", *(task.name for task in tasks)], rows), width=width),
        "",
        "Protocol: cosine of the embeddings, no regressor; correlations x100 over all pairs of",
        'a task ("all"); mean and wmean = plain and pair-weighted mean over its subsets.',
    ]


def task_lines(score: TaskScore) -> list[str]:
    """List name, metrics (the main one first), counts and protocol of a task other than STS."""
    names = [score.main, *(name for name in score.metrics if name != score.main)]
    figures = "   ".join(f"{name} {decimal(score.metrics[name])}" for name in names)
    counts = ", ".join(f"{count:,} {what}" for what, count in score.counts.items())
    return [f"{one_line(score.name)}: {figures}", f"  {counts}; {score.protocol}"]


def geometry_lines(shape: Geometry) -> list[str]:
    """List the measures of the embedding space."""
    return [
        f"Geometry on {one_line(shape.source)}:",
        f"  alignment {decimal(shape.alignment, 4)}   uniformity {decimal(shape.uniformity, 4)}   "
        f"mean cosine {decimal(shape.mean_cosine, 4)}   "
        f"dimension std {decimal(shape.dimension_std, 4)}   "
        f"effective rank {decimal(shape.effective_rank, 1)}",
        f"  IsoScore {decimal(shape.iso_score, 4)}   tolerance {decimal(shape.tolerance, 4)}   "
        f"hubness {decimal(shape.hubness)}   "
        f"positives among the 10 nearest {decimal(100 * shape.neighbours_found, 1)} %",
    ]
