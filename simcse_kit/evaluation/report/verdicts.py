"""What a comparison found, as tables of the report page."""

from __future__ import annotations

from simcse_kit.evaluation.report.numbers import DASH, Cell, fixed, is_number
from simcse_kit.evaluation.report.tables import Row, Table
from simcse_kit.evaluation.results import AVERAGE
from simcse_kit.evaluation.statistics.bootstrap import Interval
from simcse_kit.evaluation.statistics.comparison import Comparison

__all__ = ["slice_tables", "verdict_tables"]

_TREND = {"better": "better", "worse": "worse"}


def verdict_tables(found: Comparison) -> list[tuple[str, Table]]:
    """For every model but the first: difference, interval, p-values and verdict of each task."""
    columns = ("Difference", f"{100 * found.level:g} % interval", "p, Holm", "Steiger", "Verdict")
    tables = []
    for model in found.models[1:]:
        rows = tuple(
            Row(
                "Average" if each.task == AVERAGE else each.task,
                (
                    Cell(_sign(each.difference.estimate), trend=_TREND.get(each.verdict, "")),
                    _interval(each.difference),
                    _p(each.adjusted),
                    _p(each.steiger),
                    Cell(each.verdict, trend=_TREND.get(each.verdict, "")),
                ),
                kind="total" if each.task == AVERAGE else "",
            )
            for each in found.of(model)
        )
        notes = (
            f"{found.resamples:,} resamples of the pairs of each subset, the same for both models; "
            "the verdict holds the p-value after Holm's correction (over tasks and models; of the "
            f"average over models) against {1 - found.level:g}.",
        )
        tables.append((f"{model} less {found.models[0]}", Table(columns, rows, notes)))
    return tables


def slice_tables(found: Comparison) -> list[tuple[str, Table]]:
    """By kind of pair."""
    tables = []
    for model, slices in found.slices.items():
        rows = tuple(
            Row(
                each.name,
                (
                    *(Cell(fixed(score) if is_number(score) else DASH) for score in each.scores),
                    Cell(_sign(each.difference.estimate)),
                    _interval(each.difference),
                ),
                hint=f"{each.pairs:,} pairs",
            )
            for each in slices
        )
        if rows:
            columns = (found.models[0], model, "Difference", f"{100 * found.level:g} % interval")
            tables.append((model, Table(columns, rows)))
    return tables


def _sign(value: float) -> str:
    return fixed(value, plus="+") if is_number(value) else DASH


def _interval(interval: Interval) -> Cell:
    if not is_number(interval.low):
        return Cell(DASH, "Undefined, as the difference is.")
    return Cell(f"{_sign(interval.low)} to {_sign(interval.high)}")


def _p(value: float) -> Cell:
    if not is_number(value):
        return Cell(DASH, "The test is for single tasks.")
    return Cell("< 0.001" if value < 0.001 else f"{value:.3f}")
