"""The tasks beside STS, as tables of the report page."""

from __future__ import annotations

from collections.abc import Sequence

from simcse_kit.evaluation.report.numbers import DASH, Better, Cell, counted, difference, number
from simcse_kit.evaluation.report.tables import Row, Table, roles
from simcse_kit.evaluation.results import Report

__all__ = ["beyond_tables"]

_ABSENT = "Not evaluated for this model."


def beyond_tables(reports: Sequence[Report]) -> list[tuple[str, Table]]:
    """A table a task: every figure of it, the one to quote first; protocol and counts below."""
    names = dict.fromkeys(name for report in reports for name in report.beyond_sts)
    columns = roles(reports) + (("Difference",) if len(reports) == 2 else ())
    tables = []
    for name in names:
        scores = [report.beyond_sts.get(name) for report in reports]
        known = [score for score in scores if score]
        metrics = dict.fromkeys([known[0].main, *(key for one in known for key in one.metrics)])
        rows = []
        for metric in metrics:
            values = [score.metrics.get(metric) if score else None for score in scores]
            cells = [
                number(value, why="Undefined." if score else _ABSENT)
                for value, score in zip(values, scores, strict=True)
            ]
            if len(reports) == 2:
                chosen: Better = "neither" if metric == "c" or "threshold" in metric else "higher"
                cells.append(difference(values[0], values[1], better=chosen))
            kind = "total" if metric == known[0].main else ""
            rows.append(Row(metric.replace("_", " "), tuple(cells), kind=kind))
        notes = dict.fromkeys(
            ", ".join(f"{counted(count)} {what}" for what, count in score.counts.items())
            + f". {score.protocol[0].upper()}{score.protocol[1:]}."
            for score in known
        )
        tables.append((name, Table(columns, tuple(rows), tuple(notes))))
    averages = [report.transfer_average for report in reports]
    if any(value is not None for value in averages):
        why = "It needs all seven transfer tasks."
        cells = [Cell(DASH, why) if value is None else number(value, why="") for value in averages]
        if len(reports) == 2:
            cells.append(difference(averages[0], averages[1]))
        row = Row("mean accuracy", tuple(cells), kind="total")
        tables.append(("Average of the seven transfer tasks", Table(columns, (row,))))
    return tables
