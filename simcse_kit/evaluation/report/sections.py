"""The figure panels of a report page, with the sentences below them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

from simcse_kit.evaluation.report import figures, tables
from simcse_kit.evaluation.report.curves import Panel, hypersphere_path
from simcse_kit.evaluation.report.numbers import counted, fixed, is_number
from simcse_kit.evaluation.results import Report

__all__ = ["cosine_section", "histogram_task", "path_panel", "plane_section", "spectrum_section"]

History = Sequence[Mapping[str, float]]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def histogram_task(reports: Sequence[Report]) -> str | None:
    """The task to draw: the one the geometry was taken on, else the first; one all share if any."""
    names = tables.task_names(reports)
    common = [name for name in names if all(name in report.tasks for report in reports)] or names
    for source in (_plain(report.geometry.source) for report in reports if report.geometry):
        named = [name for name in common if _plain(name) and _plain(name) in source]
        if named:
            return max(named, key=lambda name: (_plain(name) == source, len(name)))
    return common[0] if common else None


def cosine_section(reports: Sequence[Report]) -> tuple[str, list[Panel]] | None:
    """The drawn task and one panel of histograms a model; None where no report has a task."""
    task = histogram_task(reports)
    if task is None:
        return None
    found = [
        figures.bin_by_gold(np.asarray(result.cosines), np.asarray(result.gold), result.scale)
        if (result := report.tasks.get(task))
        else None
        for report in reports
    ]
    lowest = min((ridges.lowest for ridges in found if ridges), default=0.0)
    panels = []
    for index, (role, ridges) in enumerate(zip(tables.roles(reports), found, strict=True)):
        heading = "All pairs" if len(reports) == 1 else role
        if ridges is None or not any(part.size for part in ridges.cosines):
            why = (
                "The task was not evaluated for this model."
                if ridges is None
                else "No pair has a cosine."
            )
            panels.append(Panel(heading, Markup(""), why))
            continue
        filled = [i for i, part in enumerate(ridges.cosines) if part.size]
        low, high = (float(np.median(ridges.cosines[i])) for i in (filled[0], filled[-1]))
        caption = (
            f"Median cosine {fixed(low)} for human scores {ridges.labels[filled[0]]} and "
            f"{fixed(high)} for {ridges.labels[filled[-1]]}: {fixed(high - low)} apart."
        )
        if ridges.left_out:
            caption += (
                f" {counted(ridges.left_out)} pairs without a cosine or off the scale are left out."
            )
        label = f"Histograms of cosines by human score. {caption}"
        drawn = figures.cosine_ridges(ridges, lowest=lowest, key=f"cosines-{index}", label=label)
        panels.append(Panel(heading, drawn, caption))
    return task, panels


def plane_section(reports: Sequence[Report], history: History) -> Panel | None:
    """The alignment-uniformity plane; None where neither reports nor history have both values."""
    path = hypersphere_path(history)
    names: tuple[str, ...] = tables.roles(reports)
    if len(reports) < 3:
        names = ("this model",) if len(reports) == 1 else ("before", "after")
    points = [
        figures.Point(name, shape.alignment, shape.uniformity, index if len(reports) > 1 else 1)
        for index, (name, report) in enumerate(zip(names, reports, strict=True))
        if (shape := report.geometry) and is_number(shape.alignment) and is_number(shape.uniformity)
    ]
    if not points:
        return path_panel(path) if len(path) > 1 else None
    arrow = len(reports) == 2 and len(points) == 2
    text = "; ".join(
        f"{point.name}: alignment {fixed(point.alignment, 3)}, "
        f"uniformity {fixed(point.uniformity, 3)}"
        for point in points
    )
    caption = text[0].upper() + text[1:] + "."
    if len(points) < len(reports):
        caption += " A model without both values is not drawn."
    if path:
        caption += (
            " The thin line with dots is the way through training, measured on the dev set, so its "
            "ends need not meet the points."
        )
    drawn = figures.hypersphere_plane(points, path, arrow=arrow, key="plane", label=caption)
    return Panel("Alignment and uniformity", drawn, caption)


def spectrum_section(reports: Sequence[Report]) -> Panel | None:
    """How many principal axes hold how much of the variance; None where no report knows."""
    shapes = [report.geometry for report in reports]
    spectra = [shape.spectrum if shape else () for shape in shapes]
    if not any(spectra):
        return None
    parts = []
    for role, spectrum in zip(tables.roles(reports), spectra, strict=True):
        if spectrum:
            half = int(np.searchsorted(np.cumsum(spectrum), 0.5)) + 1
            who = "" if len(reports) == 1 else f"{role}: "
            parts.append(f"{who}half of the variance lies along {counted(half)} of {len(spectrum)}")
    caption = f"{'; '.join(parts)} axes. A curve that climbs slowly is an even spread."
    caption = caption[0].upper() + caption[1:]
    drawn = figures.spectrum(spectra, key="spectrum", label=caption)
    return Panel("Variance along the principal axes", drawn, caption)


def path_panel(path: Sequence[tuple[float, float]]) -> Panel:
    """The way through the plane alone; ``path`` is ``(uniformity, alignment)``, not empty."""
    ends = [
        figures.Point(name, alignment, uniformity, series)
        for name, (uniformity, alignment), series in (("first", path[0], 0), ("last", path[-1], 1))
    ]
    first, last = ends
    caption = (
        f"The way through training, measured on the dev set at {counted(len(path))} evaluations. "
        f"Alignment {fixed(first.alignment, 3)} to {fixed(last.alignment, 3)}, "
        f"uniformity {fixed(first.uniformity, 3)} to {fixed(last.uniformity, 3)}."
    )
    drawn = figures.hypersphere_plane(ends, path, arrow=False, key="plane", label=caption)
    return Panel("Alignment and uniformity", drawn, caption)
