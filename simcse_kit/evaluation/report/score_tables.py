"""Tables of scores: by task, subset and metric, with intervals and verdicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from simcse_kit.evaluation.report.dimensions import is_sweep
from simcse_kit.evaluation.report.numbers import (
    compared,
    counted,
    difference,
    fixed,
    is_number,
    number,
    text_cells,
)
from simcse_kit.evaluation.results import (
    AVERAGE,
    STANDARD_TASKS,
    Report,
    SubsetScore,
    TaskResult,
)
from simcse_kit.evaluation.statistics.bootstrap import Interval
from simcse_kit.evaluation.statistics.comparison import Comparison
from simcse_kit.utils.tables import DASH, Cell, Row, Table

__all__ = [
    "Headline",
    "headline",
    "interval_table",
    "model_columns",
    "roles",
    "score_table",
    "slice_tables",
    "subset_tables",
    "task_names",
    "task_tables",
    "verdict_tables",
]

_UNDEFINED = (
    "Undefined: a rank correlation needs at least two different values on either side, "
    "and finite cosines."
)
_ABSENT = "Not evaluated for this model."
_ALL_SEVEN = "Average of the seven"


@dataclass(frozen=True, slots=True)
class Headline:
    """The score at the top of the page: one cell for each model, and the change of two models.

    ``reason`` explains why the score is not the average; it is empty if it is.
    """

    name: str
    cells: tuple[Cell, ...]
    change: Cell | None
    reason: str


def roles(reports: Sequence[Report]) -> tuple[str, ...]:
    """Name the models by their role: Score | Before, After | Model A, Model B, ...

    Reports of several numbers of dimensions are named by these.
    """
    if is_sweep(reports):
        return tuple(f"{report.dimensions} dimensions" for report in reports)
    if len(reports) == 1:
        return ("Score",)
    if len(reports) == 2:
        return ("Before", "After")
    return tuple(
        f"Model {chr(ord('A') + i)}" if i < 26 else f"Model {i + 1}" for i in range(len(reports))
    )


def model_columns(reports: Sequence[Report]) -> tuple[str, ...]:
    """Return the columns of a comparison: one per model, and for two models the difference."""
    return roles(reports) + (("Difference",) if len(reports) == 2 else ())


def task_names(reports: Sequence[Report]) -> list[str]:
    """List the STS tasks of all reports, in order of first appearance."""
    return list(dict.fromkeys(name for report in reports for name in report.tasks))


def _score(report: Report, task: str) -> float | None:
    return report.tasks[task].spearman if task in report.tasks else None


def _why_no_average(report: Report) -> str:
    missing = [task for task in STANDARD_TASKS if task not in report.tasks]
    if missing:
        return f"The average needs all seven standard tasks; missing: {', '.join(missing)}."
    return "The average needs a defined score in each of the seven standard tasks."


def _marks(values: Sequence[float | None]) -> tuple[float | None, ...]:
    return tuple(
        min(max(float(value), 0.0), 100.0) if value is not None and is_number(value) else None
        for value in values
    )


def score_table(reports: Sequence[Report]) -> Table:
    """Tabulate Spearman x100 over all pairs of each task, and the average of the seven tasks."""
    rows = []
    notes = []
    for task in task_names(reports):
        values = [_score(report, task) for report in reports]
        cells = compared(values, [_UNDEFINED if task in r.tasks else _ABSENT for r in reports])
        counts = dict.fromkeys(r.tasks[task].pairs for r in reports if task in r.tasks)
        hint = f"{' / '.join(map(counted, counts))} pairs"
        rows.append(Row(task, cells, hint=hint, marks=_marks(values)))
        if len(counts) > 1:
            notes.append(f"{task}: the models were scored on different numbers of pairs ({hint}).")
    averages = [report.average for report in reports]
    cells = compared(averages, [_why_no_average(report) for report in reports])
    hint = "seven standard tasks"
    rows.append(Row("Average", cells, kind="total", hint=hint, marks=_marks(averages)))
    return Table(model_columns(reports), tuple(rows), tuple(notes), head="Task")


def headline(reports: Sequence[Report]) -> Headline:
    """Choose the average if every report has one, else the first task that all reports score."""
    averages = [report.average for report in reports]
    if all(map(is_number, averages)):
        name, values, reason = f"{_ALL_SEVEN} standard tasks", averages, ""
    else:
        without = next(report for report in reports if not is_number(report.average))
        why = _why_no_average(without)
        reason = f"There is no average: {why[0].lower()}{why[1:]}"
        names = task_names(reports)
        shared = [task for task in names if all(is_number(_score(r, task)) for r in reports)]
        if not shared:
            reason += " No task has a defined score for every model either."
            cells = [number(r.average, reason=_why_no_average(r)) for r in reports]
            return Headline("Average", tuple(cells), None, reason)
        name, values = shared[0], [_score(report, shared[0]) for report in reports]
    change = difference(values[0], values[1]) if len(values) == 2 else None
    return Headline(name, tuple(number(value, reason="") for value in values), change, reason)


def interval_table(reports: Sequence[Report]) -> Table | None:
    """Tabulate the interval of each task and of the average; None if no report has intervals."""
    settings = dict.fromkeys(
        f"{100 * found.level:g} % intervals from {found.resamples:,} resamples of the pairs of "
        "each subset (bias-corrected and accelerated bootstrap)."
        for report in reports
        if (found := report.intervals)
    )
    if not settings:
        return None
    rows = []
    for name in [*task_names(reports), AVERAGE]:
        intervals = [r.intervals.scores.get(name) if r.intervals else None for r in reports]
        if any(intervals):
            cells = (
                _range(interval, "Undefined, because the score is undefined.")
                if interval
                else Cell(DASH, "No interval was computed for this model.")
                for interval in intervals
            )
            rows.append(_task_row(name, tuple(cells)))
    return Table(roles(reports), tuple(rows), tuple(settings), head="Task")


def subset_tables(reports: Sequence[Report]) -> list[tuple[str, Table]]:
    """Tabulate per task Spearman and Pearson over all pairs and in each subset, and the means."""
    names = [name.lower() if len(reports) == 2 else name for name in roles(reports)]
    several = len(reports) > 1
    columns = ["Pairs", *(f"Spearman {name}" if several else "Spearman" for name in names)]
    columns += ["Difference"] if len(reports) == 2 else []
    columns += [f"Pearson {name}" if several else "Pearson" for name in names]
    tables = []
    for task in task_names(reports):
        results = [report.tasks.get(task) for report in reports]
        rows = [_subset("all pairs", results, "total")]
        for subset in dict.fromkeys(
            name for result in results if result for name in result.subsets
        ):
            parts = [result.subsets.get(subset) if result else None for result in results]
            rows.append(_subset(subset, parts))
        if len(rows) > 2:  # the means over a single subset equal that subset
            rows.append(_mean("mean of the subsets", task, results, lambda result: result.mean))
            rows.append(_mean("mean weighted by pairs", task, results, lambda result: result.wmean))
        tables.append((task, Table(tuple(columns), tuple(rows), head="Subset")))
    return tables


def _subset(name: str, scores: Sequence[TaskResult | SubsetScore | None], kind: str = "") -> Row:
    reasons = [_UNDEFINED if score else _ABSENT for score in scores]
    counts = dict.fromkeys(score.pairs for score in scores if score)
    cells = [Cell(" / ".join(map(counted, counts)))]
    cells += compared([score.spearman if score else None for score in scores], reasons)
    cells += [
        number(score.pearson if score else None, reason=reason)
        for score, reason in zip(scores, reasons, strict=True)
    ]
    return Row(name, tuple(cells), kind=kind)


def _mean(
    name: str,
    task: str,
    results: Sequence[TaskResult | None],
    pick: Callable[[TaskResult], float],
) -> Row:
    undefined = f"The mean needs a defined score in every subset of {task}."
    values = [pick(result) if result else None for result in results]
    cells = compared(values, [undefined if result else _ABSENT for result in results])
    return Row(name, (Cell(""), *cells, *(Cell("") for _ in results)), kind="mean")


def task_tables(reports: Sequence[Report]) -> list[tuple[str, Table]]:
    """Tabulate all metrics of each other task, the main one first, with protocol and counts."""
    tables = []
    for name in dict.fromkeys(name for report in reports for name in report.beyond_sts):
        scores = [report.beyond_sts.get(name) for report in reports]
        known = [score for score in scores if score]
        reasons = ["Undefined." if score else _ABSENT for score in scores]
        rows = []
        for metric in dict.fromkeys(
            [known[0].main, *(key for one in known for key in one.metrics)]
        ):
            values = [score.metrics.get(metric) if score else None for score in scores]
            setting = metric == "c" or "threshold" in metric
            cells = compared(values, reasons, better="neither" if setting else "higher")
            kind = "total" if metric == known[0].main else ""
            rows.append(Row(metric.replace("_", " "), cells, kind=kind))
        notes = dict.fromkeys(
            ", ".join(f"{counted(count)} {what}" for what, count in score.counts.items())
            + f". {score.protocol[0].upper()}{score.protocol[1:]}."
            for score in known
        )
        tables.append((name, Table(model_columns(reports), tuple(rows), tuple(notes), "Measure")))
    averages = [report.transfer_average for report in reports]
    if any(value is not None for value in averages):
        reasons = [
            "The average needs all seven transfer tasks." if value is None else ""
            for value in averages
        ]
        row = Row("mean accuracy", compared(averages, reasons), kind="total")
        table = Table(model_columns(reports), (row,), head="Measure")
        tables.append((f"{_ALL_SEVEN} transfer tasks", table))
    return tables


def verdict_tables(found: Comparison) -> list[tuple[str, Table]]:
    """Tabulate difference, interval, p-values and verdict of each task for each later model."""
    columns = ("Difference", f"{100 * found.level:g} % interval", "p, Holm", "Steiger", "Verdict")
    notes = (
        f"{found.resamples:,} resamples of the pairs of each subset, the same for both models. "
        f"The verdict compares the p-value with {1 - found.level:g} after Holm's correction, which "
        "is over tasks and models, and for the average over models.",
    )
    tables = []
    for model in found.models[1:]:
        rows = []
        for each in found.of(model):
            trend = each.verdict if each.verdict in ("better", "worse") else ""
            cells = (
                Cell(_signed(each.difference.estimate), trend=trend),
                _range(each.difference, "Undefined, because the difference is.", plus="+"),
                _p_value(each.adjusted),
                _p_value(each.steiger),
                Cell(each.verdict, trend=trend),
            )
            rows.append(_task_row(each.task, cells))
        table = Table(columns, tuple(rows), notes, head="Task")
        tables.append((f"{model} less {found.models[0]}", table))
    return tables


def slice_tables(found: Comparison) -> list[tuple[str, Table]]:
    """Tabulate scores and difference by kind of pair for each model except the first."""
    tables = []
    for model, slices in found.slices.items():
        columns = (found.models[0], model, "Difference", f"{100 * found.level:g} % interval")
        rows = tuple(
            Row(
                each.name,
                (
                    *text_cells((fixed(s) if is_number(s) else None for s in each.scores), ""),
                    Cell(_signed(each.difference.estimate)),
                    _range(each.difference, "Undefined, because the difference is.", plus="+"),
                ),
                hint=f"{each.pairs:,} pairs",
            )
            for each in slices
        )
        if rows:
            tables.append((model, Table(columns, rows, head="Kind")))
    return tables


def _task_row(name: str, cells: tuple[Cell, ...]) -> Row:
    return Row("Average", cells, kind="total") if name == AVERAGE else Row(name, cells)


def _signed(value: float) -> str:
    return fixed(value, plus="+") if is_number(value) else DASH


def _range(interval: Interval, reason: str, *, plus: str = "") -> Cell:
    if not is_number(interval.low):
        return Cell(DASH, reason)
    return Cell(f"{fixed(interval.low, plus=plus)} to {fixed(interval.high, plus=plus)}")


def _p_value(value: float) -> Cell:
    if not is_number(value):
        return Cell(DASH, "The test is for single tasks.")
    return Cell("< 0.001" if value < 0.001 else f"{value:.3f}")
