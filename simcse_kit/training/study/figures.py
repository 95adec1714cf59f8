"""The plot of a study: dev scores seed by seed, and the alignment-uniformity plane."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simcse_kit.training.study.table import StudyRow
from simcse_kit.utils.files import write_atomic

__all__ = ["write_plot"]

# Okabe and Ito's palette, distinguishable with a colour vision deficiency.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f6d00", "#444444")
_MARKERS = "os^DvP*X"
_START = "#8a8f98"
# Characters in a line of options.
_WIDTH = 36
_SETTINGS: dict[str, Any] = {"svg.fonttype": "none", "svg.hashsalt": "simcse-kit", "font.size": 10}


def write_plot(rows: Sequence[StudyRow], path: Path) -> None:
    """Write the plot as SVG; methods without a figure are left out.

    Args:
        rows: The rows of :func:`~simcse_kit.training.study.table.rows_of`.
        path: The file to write.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        parameters: Any = matplotlib.rcParams
        parameters.update(_SETTINGS)
        lines = sum(_label(row.method).count("\n") + 1 for row in rows)
        height = max(3.8, 0.19 * len(rows) + 0.17 * lines + 1.2)
        figure = Figure(figsize=(11.5, height), layout="constrained", facecolor="white")
        left, right = figure.subplots(1, 2)
        styles = [
            (_START, "s")
            if "sentences_per_second" not in row.values
            else (_COLOURS[n % len(_COLOURS)], _MARKERS[n // len(_COLOURS) % len(_MARKERS)])
            for n, row in enumerate(rows)
        ]
        _scores(left, rows, styles)
        _plane(right, rows, styles)
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    write_atomic(path, buffer.getvalue())


def _scores(axes: Axes, rows: Sequence[StudyRow], styles: Sequence[tuple[str, str]]) -> None:
    for place, (row, (colour, marker)) in enumerate(zip(rows, styles, strict=True)):
        found = row.values.get("dev_spearman", [])
        mean = row.mean("dev_spearman")
        axes.plot(found, [place] * len(found), marker, color=colour, alpha=0.5, markersize=6)
        if mean is not None:
            axes.plot([mean, mean], [place - 0.3, place + 0.3], color=colour, lw=2.5)
            axes.annotate(
                f"{mean:.1f}",
                (max(found), place),
                xytext=(8, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
            )
    axes.set_yticks(range(len(rows)), [_label(row.method) for row in rows], fontsize=8.5)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    # Space for the number next to the last point.
    axes.margins(x=0.2)
    axes.set_xlabel("points: seeds, bar: mean")
    axes.set_title("dev Spearman x100", fontsize=11)
    axes.grid(axis="x", color="#e3e5e8")
    _bare(axes)


def _plane(axes: Axes, rows: Sequence[StudyRow], styles: Sequence[tuple[str, str]]) -> None:
    for row, (colour, marker) in zip(rows, styles, strict=True):
        if "alignment" in row.values and "uniformity" in row.values:
            uniform, aligned = row.values["uniformity"], row.values["alignment"]
            axes.plot(uniform, aligned, marker, color=colour, markersize=7)
    axes.set_xlabel("uniformity (lower is better)")
    axes.set_ylabel("alignment (lower is better)")
    axes.set_title("same colours", fontsize=11)
    axes.grid(color="#e3e5e8")
    axes.margins(0.1)
    _bare(axes)


def _label(method: str) -> str:
    """Put the options of a method into short lines below its name."""
    name, bracket, options = method.partition("(")
    if not bracket:
        return name
    lines = textwrap.wrap(
        options.removesuffix(")"), _WIDTH, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join([name, *lines])


def _bare(axes: Axes) -> None:
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
