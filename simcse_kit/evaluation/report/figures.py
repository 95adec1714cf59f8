"""Figures of an evaluation: cosines by human score, alignment-uniformity plane, spectrum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from simcse_kit.evaluation.report import svg
from simcse_kit.evaluation.report.numbers import counted

__all__ = [
    "Point",
    "Ridges",
    "bin_by_gold",
    "cosine_ridges",
    "gold_edges",
    "hypersphere_plane",
    "spectrum",
]

_COLUMNS = 44  # bars in one row


@dataclass(frozen=True, slots=True)
class Ridges:
    """The finite cosines of one task, one array for each bin of human scores, lowest first.

    ``left_out`` counts the pairs without a finite cosine or outside the scale.
    """

    labels: tuple[str, ...]
    cosines: tuple[np.ndarray, ...]
    left_out: int

    @property
    def lowest(self) -> float:
        """The smallest cosine of all bins; 0 if there is none."""
        return min((float(part.min()) for part in self.cosines if part.size), default=0.0)

    def median(self, index: int) -> float | None:
        """Return the median cosine of a bin, or None if the bin is empty."""
        part = self.cosines[index]
        return float(np.median(part)) if part.size else None


def gold_edges(scale: tuple[float, float]) -> np.ndarray:
    """Divide a score scale into bins of width 1 if that gives 2 to 5, else into five equal bins.

    Examples:
        >>> gold_edges((1.0, 5.0)).tolist(), gold_edges((0.0, 10.0)).tolist()
        ([1.0, 2.0, 3.0, 4.0, 5.0], [0.0, 2.0, 4.0, 6.0, 8.0, 10.0])
    """
    low, high = scale
    span = high - low
    bins = int(span) if span == int(span) and 2 <= span <= 5 else 5
    return np.linspace(low, high, bins + 1)


def bin_by_gold(cosines: np.ndarray, gold: np.ndarray, scale: tuple[float, float]) -> Ridges:
    """Split ``cosines (n,)`` by ``gold (n,)``; a score on an edge counts in the upper bin."""
    edges = gold_edges(scale)
    usable = np.isfinite(cosines) & (gold >= scale[0]) & (gold <= scale[1])
    index = np.clip(np.searchsorted(edges, gold[usable], side="right") - 1, 0, len(edges) - 2)
    kept = np.clip(cosines[usable], -1.0, 1.0)
    return Ridges(
        labels=tuple(f"{a:g}\u2013{b:g}" for a, b in pairwise(edges)),
        cosines=tuple(kept[index == i] for i in range(len(edges) - 1)),
        left_out=int(len(cosines) - usable.sum()),
    )


def cosine_ridges(ridges: Ridges, *, lowest: float, key: str, label: str) -> Markup:
    """Draw one histogram row for each bin, lowest score at the bottom, with the median marked.

    The axis starts at ``lowest``, which should be the same for all panels of a page. ``key`` and
    ``label`` are those of :func:`.svg.render`.
    """
    left = max(np.floor(lowest * 10 - 1e-9) / 10, -1.0)
    left = min(left, 0.9)
    edges = np.linspace(left, 1.0, _COLUMNS + 1)
    rows = len(ridges.labels)

    def draw(figure: Figure) -> None:
        pane = svg.axes(figure, left=76, right=44, bottom=40, top=22)
        pane.set(xlim=(left, 1.0), ylim=(0, rows), yticks=[])
        pane.spines["left"].set_visible(False)
        pane.grid(axis="y", visible=False)
        pane.locator_params(axis="x", nbins=7)
        pane.set_xlabel("cosine of the two embeddings")
        beside = pane.get_yaxis_transform()
        left_side: dict[str, Any] = {"transform": beside, "ha": "right"}
        pane.text(-0.03, rows + 0.12, "human score", **left_side, **svg.SMALL)
        pane.text(1.03, rows + 0.12, "median", transform=beside, ha="left", **svg.SMALL)
        for row, (name, part) in enumerate(zip(ridges.labels, ridges.cosines, strict=True)):
            color = svg.BINS[row + len(svg.BINS) - rows]
            pane.axhline(row, color=svg.GRID, linewidth=0.8)
            pane.text(-0.03, row + 0.36, name, color=svg.INK, **left_side)
            size = f"n = {counted(part.size)}"
            pane.text(-0.03, row + 0.07, size, color=svg.MUTED, size=8.5, **left_side)
            median = ridges.median(row)
            if median is None:
                continue
            share = np.histogram(part, bins=edges)[0] / part.size
            height = 0.86 * share / share.max()
            pane.stairs(row + height, edges, baseline=row, fill=True, color=color, linewidth=0)
            pane.vlines(median, row, row + 0.92, color=svg.INK, linewidth=1.4)
            text = f"{median:.2f}".replace("-", "\u2212")
            pane.text(1.03, row + 0.2, text, transform=beside, ha="left", color=svg.INK)

    return svg.render(draw, key=key, label=label, size=(380, 62 + 46 * rows))


@dataclass(frozen=True, slots=True)
class Point:
    """A point in the alignment-uniformity plane.

    ``name`` is drawn, so it must be a trusted word such as "before", never the name of a model.
    """

    name: str
    alignment: float
    uniformity: float
    series: int = 0


def hypersphere_plane(
    points: Sequence[Point],
    path: Sequence[tuple[float, float]],
    *,
    arrow: bool,
    key: str,
    label: str,
) -> Markup:
    """Draw the plane with uniformity to the right and alignment upwards; lower is better on both.

    At least one of ``points`` (the models) and ``path`` must not be empty. ``path`` has
    ``(uniformity, alignment)`` at each evaluation during training. ``arrow`` connects the first two
    points. ``key`` and ``label`` are those of :func:`.svg.render`.
    """

    def draw(figure: Figure) -> None:
        pane = svg.axes(figure, left=48, right=14, bottom=42, top=26)
        across = np.array([point.uniformity for point in points] + [x for x, _ in path])
        upward = np.array([point.alignment for point in points] + [y for _, y in path])
        pane.set(xlim=_around(across), ylim=_around(upward))
        pane.locator_params(nbins=5)
        pane.set_xlabel("uniformity")
        pane.set_title("alignment", loc="left", size=11, color=svg.MUTED, x=-0.11)
        pane.annotate(
            "better on both",
            xy=(0.02, 0.03),
            xytext=(0.09, 0.09),
            xycoords="axes fraction",
            **svg.SMALL,
            arrowprops={"arrowstyle": "->", "color": svg.MUTED, "shrinkA": 1, "shrinkB": 0},
        )
        if path:
            xs, ys = zip(*path, strict=True)
            pane.plot(xs, ys, color=svg.SERIES[1], linewidth=1.2, alpha=0.75)
            if len(path) <= 200:
                pane.plot(xs, ys, linestyle="", marker="o", markersize=2.6, color=svg.SERIES[1])
        if arrow and len(points) > 1:
            ends = [(point.uniformity, point.alignment) for point in points[:2]]
            style = {
                "arrowstyle": "-|>,head_length=0.5,head_width=0.25",
                "color": svg.INK,
                "linewidth": 1.3,
                "shrinkA": 8,
                "shrinkB": 8,
            }
            pane.annotate("", xy=ends[1], xytext=ends[0], arrowprops=style)
        middle = sum(pane.get_xlim()) / 2
        for point in points:
            color = svg.SERIES[point.series % len(svg.SERIES)]
            x, y = point.uniformity, point.alignment
            pane.plot(
                x, y, marker="o", markersize=9, color=color, markeredgecolor=svg.PAPER, zorder=4
            )
            # The name is on the side away from the other points, clear of arrow and path.
            above = y >= upward.mean()
            outward = 0 if len(across) == 1 else -1 if x < middle else 1
            pane.annotate(
                point.name,
                (x, y),
                xytext=(4 * outward, 9 if above else -17),
                textcoords="offset points",
                ha="center",
                color=svg.INK,
                weight="bold",
                zorder=5,
            )

    return svg.render(draw, key=key, label=label, size=(380, 290))


def spectrum(spectra: Sequence[Sequence[float]], *, key: str, label: str) -> Markup:
    """Draw the cumulative variance of each model's spectrum; empty spectra are skipped.

    Each spectrum has shares of the variance, largest first.
    """

    def draw(figure: Figure) -> None:
        pane = svg.axes(figure, left=48, right=14, bottom=42, top=26)
        pane.set(xscale="log", ylim=(0, 102))
        pane.set_xlabel("principal axes, most important first")
        pane.set_title("% of the variance", loc="left", size=11, color=svg.MUTED, x=-0.11)
        longest = max(map(len, spectra))
        marks = [mark for mark in (1, 3, 10, 30, 100, 300, 1000, 3000) if mark <= longest]
        pane.set_xticks(marks, [str(mark) for mark in marks])
        pane.minorticks_off()
        pane.axhline(50, color=svg.MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
        for index, shares in enumerate(spectra):
            if shares:
                color = svg.SERIES[(index if len(spectra) > 1 else 1) % len(svg.SERIES)]
                across = np.arange(1, len(shares) + 1)
                pane.plot(across, 100 * np.cumsum(shares), color=color)

    return svg.render(draw, key=key, label=label, size=(380, 260))


def _around(values: np.ndarray) -> tuple[float, float]:
    """Return axis limits with a margin on both sides, even if all values are equal."""
    low, high = float(values.min()), float(values.max())
    room = 0.22 * (high - low) or max(0.1 * abs(low), 0.05)
    return low - room, high + room
