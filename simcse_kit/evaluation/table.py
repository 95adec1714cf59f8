"""The text table of a report."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simcse_kit.evaluation.results import Geometry, Report, TaskResult

__all__ = ["render"]

_WIDTH = 100
_GAP = "  "
_ROWS = ("Spearman all", "Spearman mean", "Spearman wmean", "Pearson all", "pairs")
_LABEL = max(map(len, _ROWS))


def render(report: Report) -> str:
    """The report as lines of at most 100 characters, unless a single name is longer.

    One column a task; where the columns do not fit side by side they are broken into blocks.
    """
    parts = [f"{report.model}   pooling: {report.pooling}"]
    parts += ["", *_blocks([_column(task) for task in report.tasks.values()])]
    if report.tasks:
        parts += [
            "",
            "Protocol: cosine of the embeddings, no regressor; correlations x100 over all pairs of",
            'a task ("all"); mean and wmean = plain and pair-weighted mean over its subsets.',
        ]
    if report.average is not None:
        parts += [f"Average of the seven tasks (Spearman all): {_score(report.average)}"]
    if report.geometry is not None:
        parts += _geometry(report.geometry)
    return "\n".join(parts)


def _score(value: float, digits: int = 2) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _column(task: TaskResult) -> list[str]:
    scores = (task.spearman, task.mean, task.wmean, task.pearson)
    return [task.name, *map(_score, scores), f"{task.pairs}"]


def _blocks(columns: list[list[str]]) -> list[str]:
    """Lay columns side by side, each right-aligned, as many a block as the width allows."""
    lines: list[str] = []
    block: list[list[str]] = []
    used = _LABEL
    for column in columns:
        width = max(map(len, column))
        if block and used + len(_GAP) + width > _WIDTH:
            lines += [*_block(block), ""]
            block, used = [], _LABEL
        block.append([cell.rjust(width) for cell in column])
        used += len(_GAP) + width
    return lines + _block(block) if block else lines


def _block(columns: list[list[str]]) -> list[str]:
    labels = [" " * _LABEL, *(row.ljust(_LABEL) for row in _ROWS)]
    return [_GAP.join(cells) for cells in zip(labels, *columns, strict=True)]


def _geometry(shape: Geometry) -> list[str]:
    return [
        f"Geometry on {shape.source}:",
        f"  alignment {_score(shape.alignment, 4)}   uniformity {_score(shape.uniformity, 4)}   "
        f"mean cosine {_score(shape.mean_cosine, 4)}   "
        f"dimension std {_score(shape.dimension_std, 4)}   "
        f"effective rank {_score(shape.effective_rank, 1)}",
    ]
