"""Confidence intervals of the scores, as a table of the report page."""

from __future__ import annotations

from collections.abc import Sequence

from simcse_kit.evaluation.report.numbers import DASH, Cell, fixed, is_number
from simcse_kit.evaluation.report.tables import Row, Table, roles, task_names
from simcse_kit.evaluation.results import AVERAGE, Report

__all__ = ["interval_table"]

_NONE = "No interval was computed for this model."
_UNDEFINED = "Undefined, as the score is."


def interval_table(reports: Sequence[Report]) -> Table | None:
    """The interval of every task and of the average; None where no report has any."""
    if all(report.intervals is None for report in reports):
        return None
    names = [*task_names(reports), AVERAGE]
    rows = [
        Row(
            "Average" if name == AVERAGE else name,
            tuple(_cell(report, name) for report in reports),
            kind="total" if name == AVERAGE else "",
        )
        for name in names
        if any(report.intervals and name in report.intervals.scores for report in reports)
    ]
    settings = dict.fromkeys(
        f"{100 * found.level:g} % intervals from {found.resamples:,} resamples of the pairs of "
        "each subset (bias-corrected and accelerated bootstrap)."
        for report in reports
        if (found := report.intervals)
    )
    return Table(roles(reports), tuple(rows), tuple(settings))


def _cell(report: Report, name: str) -> Cell:
    if report.intervals is None or name not in report.intervals.scores:
        return Cell(DASH, _NONE)
    interval = report.intervals.scores[name]
    if not is_number(interval.low):
        return Cell(DASH, _UNDEFINED)
    return Cell(f"{fixed(interval.low)} to {fixed(interval.high)}")
