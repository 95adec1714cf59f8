"""The figures of a report page with their captions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

from simcse_kit.evaluation.report import figures
from simcse_kit.evaluation.report.curves import Panel, hypersphere_path
from simcse_kit.evaluation.report.dimensions import is_sweep
from simcse_kit.evaluation.report.numbers import counted, fixed, is_number
from simcse_kit.evaluation.report.score_tables import roles, task_names
from simcse_kit.evaluation.results import Report

__all__ = ["cosine_panels", "histogram_task", "path_panel", "plane_panel", "spectrum_panel"]


def histogram_task(reports: Sequence[Report]) -> str | None:
    """Choose the task to draw: that of the geometry, else the first task, shared by all if any."""

    def letters(name: str) -> str:
        return re.sub(r"[^a-z0-9]", "", name.lower())

    names = task_names(reports)
    common = [name for name in names if all(name in report.tasks for report in reports)] or names
    for source in (letters(report.geometry.source) for report in reports if report.geometry):
        named = [name for name in common if letters(name) and letters(name) in source]
        if named:
            return max(named, key=lambda name: (letters(name) == source, len(name)))
    return common[0] if common else None


def cosine_panels(reports: Sequence[Report], task: str) -> list[Panel]:
    """Draw histograms of the cosines of a task by human score, one panel for each model."""
    found = [
        figures.bin_by_gold(result.cosines, result.gold, result.scale)
        if (result := report.tasks.get(task))
        else None
        for report in reports
    ]
    lowest = min((ridges.lowest for ridges in found if ridges), default=0.0)
    panels = []
    for index, (role, ridges) in enumerate(zip(roles(reports), found, strict=True)):
        heading = "All pairs" if len(reports) == 1 else role
        if ridges is None:
            panels.append(Panel(heading, Markup(""), "The task was not evaluated for this model."))
            continue
        medians = [
            (label, median)
            for index_of_bin, label in enumerate(ridges.labels)
            if (median := ridges.median(index_of_bin)) is not None
        ]
        if not medians:
            panels.append(Panel(heading, Markup(""), "No pair has a cosine."))
            continue
        (lower, low), (upper, high) = medians[0], medians[-1]
        caption = (
            f"Median cosine {fixed(low)} for human scores {lower} and {fixed(high)} for {upper}: "
            f"{fixed(high - low)} apart."
        )
        if ridges.left_out:
            caption += (
                f" {counted(ridges.left_out)} pairs without a cosine or off the scale are left out."
            )
        label = f"Histograms of cosines by human score. {caption}"
        drawn = figures.cosine_ridges(ridges, lowest=lowest, key=f"cosines-{index}", label=label)
        panels.append(Panel(heading, drawn, caption))
    return panels


def plane_panel(reports: Sequence[Report], history: Sequence[Mapping[str, float]]) -> Panel | None:
    """Draw the alignment-uniformity plane; None if no model and no step has both values."""
    path = hypersphere_path(history)
    names: tuple[str, ...] = roles(reports)
    if len(reports) < 3 and not is_sweep(reports):
        names = ("this model",) if len(reports) == 1 else ("before", "after")
    points = [
        figures.Point(name, shape.alignment, shape.uniformity, index if len(reports) > 1 else 1)
        for index, (name, report) in enumerate(zip(names, reports, strict=True))
        if (shape := report.geometry) and is_number(shape.alignment) and is_number(shape.uniformity)
    ]
    if not points:
        return path_panel(path) if len(path) > 1 else None
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
    return _plane(points, path, caption, arrow=len(reports) == len(points) == 2)


def path_panel(path: Sequence[tuple[float, float]]) -> Panel:
    """Draw the path of a training run; ``path`` is ``(uniformity, alignment)``, not empty."""
    first, last = ends = [
        figures.Point(name, alignment, uniformity, series)
        for name, (uniformity, alignment), series in (("first", path[0], 0), ("last", path[-1], 1))
    ]
    caption = (
        f"The way through training, measured on the dev set at {counted(len(path))} evaluations. "
        f"Alignment {fixed(first.alignment, 3)} to {fixed(last.alignment, 3)}, "
        f"uniformity {fixed(first.uniformity, 3)} to {fixed(last.uniformity, 3)}."
    )
    return _plane(ends, path, caption)


def _plane(
    points: Sequence[figures.Point],
    path: Sequence[tuple[float, float]],
    caption: str,
    *,
    arrow: bool = False,
) -> Panel:
    drawn = figures.hypersphere_plane(points, path, arrow=arrow, key="plane", label=caption)
    return Panel("Alignment and uniformity", drawn, caption)


def spectrum_panel(reports: Sequence[Report]) -> Panel | None:
    """Draw the cumulative variance along the principal axes; None if no report has a spectrum."""
    spectra = [report.geometry.spectrum if report.geometry else () for report in reports]
    if not any(spectra):
        return None
    parts = []
    for role, spectrum in zip(roles(reports), spectra, strict=True):
        if spectrum:
            half = int(np.searchsorted(np.cumsum(spectrum), 0.5)) + 1
            who = "" if len(reports) == 1 else f"{role}: "
            parts.append(f"{who}half of the variance lies along {counted(half)} of {len(spectrum)}")
    caption = f"{'; '.join(parts)} axes. A curve that climbs slowly is an even spread."
    caption = caption[0].upper() + caption[1:]
    drawn = figures.spectrum(spectra, key="spectrum", label=caption)
    return Panel("Variance along the principal axes", drawn, caption)
