"""What the report page shows in its tables, worked out of the reports; no markup here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from simcse_kit.evaluation.report.numbers import (
    DASH,
    Better,
    Cell,
    counted,
    difference,
    duration,
    is_number,
    number,
)
from simcse_kit.evaluation.results import STANDARD_TASKS, Geometry, Report, SubsetScore, TaskResult

__all__ = [
    "Headline",
    "Row",
    "Table",
    "detail_tables",
    "environment_table",
    "geometry_table",
    "headline",
    "roles",
    "score_table",
    "task_names",
]

_UNDEFINED = (
    "Undefined: a rank correlation needs at least two different values on either side, "
    "and cosines that are numbers."
)


_ABSENT = "Not evaluated for this model."


@dataclass(frozen=True, slots=True)
class Row:
    """One table row: its name, one cell a column, and a style word.

    ``marks`` are places on a scale of 0 to 100, one a model, for the small dot chart. ``second`` is
    the other text of a row that is named by two.
    """

    name: str
    cells: tuple[Cell, ...]
    kind: str = ""
    hint: str = ""
    marks: tuple[float | None, ...] = ()
    second: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Column headings, rows, and notes below; ``explained`` lists why dashes are dashes."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    explained: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        reasons = dict.fromkeys(
            cell.why for row in self.rows for cell in row.cells if cell.text == DASH and cell.why
        )
        object.__setattr__(self, "explained", tuple(reasons))


@dataclass(frozen=True, slots=True)
class Headline:
    """The line at the top: what it counts, one cell a model, and with two models the change."""

    name: str
    cells: tuple[Cell, ...]
    change: Cell | None
    why: str


def roles(reports: Sequence[Report]) -> tuple[str, ...]:
    """Short names of ours for the models: Score | Before, After | Model A, Model B, ..."""
    if len(reports) == 1:
        return ("Score",)
    if len(reports) == 2:
        return ("Before", "After")
    return tuple(
        f"Model {chr(ord('A') + i)}" if i < 26 else f"Model {i + 1}" for i in range(len(reports))
    )


def _with_change(
    values: Sequence[float | None],
    cells: list[Cell],
    decimals: int = 2,
    better: Better = "higher",
) -> tuple[Cell, ...]:
    if len(values) == 2:
        cells.append(difference(values[0], values[1], decimals, better=better))
    return tuple(cells)


def _columns(reports: Sequence[Report]) -> tuple[str, ...]:
    return roles(reports) + (("Difference",) if len(reports) == 2 else ())


def task_names(reports: Sequence[Report]) -> list[str]:
    """Every task of any report, in the order of first appearance."""
    return list(dict.fromkeys(name for report in reports for name in report.tasks))


def _score(report: Report, task: str) -> float | None:
    return report.tasks[task].spearman if task in report.tasks else None


def _score_cell(report: Report, task: str) -> Cell:
    return number(_score(report, task), why=_UNDEFINED if task in report.tasks else _ABSENT)


def _average_cell(report: Report) -> Cell:
    missing = [task for task in STANDARD_TASKS if task not in report.tasks]
    if missing:
        why = f"The average needs all seven standard tasks; missing: {', '.join(missing)}."
    else:
        why = "The average needs a defined score in each of the seven standard tasks."
    return number(report.average, why=why)


def _mark(value: float | None) -> float | None:
    return min(max(float(value), 0.0), 100.0) if value is not None and is_number(value) else None


def score_table(reports: Sequence[Report]) -> Table:
    """Spearman x100 over all pairs of each task, and the average of the seven standard tasks."""
    rows = []
    notes = []
    for task in task_names(reports):
        values = [_score(report, task) for report in reports]
        cells = _with_change(values, [_score_cell(report, task) for report in reports], 2)
        counts = list(
            dict.fromkeys(report.tasks[task].pairs for report in reports if task in report.tasks)
        )
        hint = " / ".join(counted(count) for count in counts) + " pairs"
        rows.append(Row(task, cells, hint=hint, marks=tuple(_mark(value) for value in values)))
        if len(counts) > 1:
            notes.append(f"{task}: the models were scored on different numbers of pairs ({hint}).")
    averages = [report.average for report in reports]
    cells = _with_change(averages, [_average_cell(report) for report in reports], 2)
    marks = tuple(_mark(value) for value in averages)
    rows.append(Row("Average", cells, kind="total", hint="seven standard tasks", marks=marks))
    return Table(_columns(reports), tuple(rows), tuple(notes))


def headline(reports: Sequence[Report]) -> Headline:
    """The average where every report has one, else the first task that all of them score."""
    averages = [report.average for report in reports]
    if all(value is not None and is_number(value) for value in averages):
        name, values, why = "Average of the seven standard tasks", averages, ""
    else:
        shared = [
            task
            for task in task_names(reports)
            if all(is_number(_score(report, task)) for report in reports)
        ]
        why = "There is no average: " + next(
            cell.why[0].lower() + cell.why[1:] for cell in map(_average_cell, reports) if cell.why
        )
        if not shared:
            why += " No task has a defined score for every model either."
            return Headline("Average", tuple(map(_average_cell, reports)), None, why)
        name, values = shared[0], [_score(report, shared[0]) for report in reports]
    cells = tuple(number(value, why="") for value in values)
    change = difference(values[0], values[1]) if len(values) == 2 else None
    return Headline(name, cells, change, why)


def detail_tables(reports: Sequence[Report]) -> list[tuple[str, Table]]:
    """For every task: all pairs, each subset, and the two means; Spearman, Pearson, pairs."""
    names = [name.lower() if len(reports) == 2 else name for name in roles(reports)]
    several = len(reports) > 1
    columns = ["Pairs", *(f"Spearman {name}" if several else "Spearman" for name in names)]
    columns += ["Difference"] if len(reports) == 2 else []
    columns += [f"Pearson {name}" if several else "Pearson" for name in names]
    tables = []
    for task in task_names(reports):
        results = [report.tasks.get(task) for report in reports]
        rows = [_detail("all pairs", results, "total")]
        for subset in dict.fromkeys(
            name for result in results if result for name in result.subsets
        ):
            parts = [result.subsets.get(subset) if result else None for result in results]
            rows.append(_detail(subset, parts))
        if len(rows) > 2:  # the means over one subset are that subset
            rows.append(_mean("mean of the subsets", task, results, lambda result: result.mean))
            rows.append(_mean("mean weighted by pairs", task, results, lambda result: result.wmean))
        tables.append((task, Table(tuple(columns), tuple(rows))))
    return tables


def _pairs_cell(counts: Sequence[int]) -> Cell:
    return Cell(" / ".join(counted(count) for count in dict.fromkeys(counts)))


def _detail(name: str, scores: Sequence[TaskResult | SubsetScore | None], kind: str = "") -> Row:
    whys = [_UNDEFINED if score else _ABSENT for score in scores]
    spearman = [score.spearman if score else None for score in scores]
    pearson = [score.pearson if score else None for score in scores]
    ranks = [number(value, why=why) for value, why in zip(spearman, whys, strict=True)]
    cells = [_pairs_cell([score.pairs for score in scores if score])]
    cells += _with_change(spearman, ranks)
    cells += [number(value, why=why) for value, why in zip(pearson, whys, strict=True)]
    return Row(name, tuple(cells), kind=kind)


def _mean(
    name: str,
    task: str,
    results: Sequence[TaskResult | None],
    pick: Callable[[TaskResult], float],
) -> Row:
    undefined = f"The mean needs a defined score in every subset of {task}."
    values = [pick(result) if result else None for result in results]
    ranks = [
        number(value, why=undefined if result else _ABSENT)
        for value, result in zip(values, results, strict=True)
    ]
    cells = [Cell(""), *_with_change(values, ranks), *(Cell("") for _ in results)]
    return Row(name, tuple(cells), kind="mean")


_GEOMETRY: tuple[tuple[str, str, int, Better, Callable[[Geometry], float]], ...] = (
    ("Alignment", "how near positives lie; lower is better", 4, "lower", lambda g: g.alignment),
    (
        "Uniformity",
        "how evenly sentences spread; lower is better",
        4,
        "lower",
        lambda g: g.uniformity,
    ),
    (
        "Mean cosine",
        "of two sentences; near 1 is a narrow cone",
        4,
        "neither",
        lambda g: g.mean_cosine,
    ),
    ("Dimension std", "spread within one dimension", 4, "neither", lambda g: g.dimension_std),
    ("Effective rank", "dimensions in real use", 1, "neither", lambda g: g.effective_rank),
    ("IsoScore", "1: all dimensions used alike", 4, "neither", lambda g: g.iso_score),
    ("Tolerance", "mean cosine of positives", 4, "neither", lambda g: g.tolerance),
    ("Hubness", "0: no sentence is everybody's neighbour", 2, "lower", lambda g: g.hubness),
    (
        "Positives found",
        "share among the 10 nearest; higher is better",
        4,
        "higher",
        lambda g: g.neighbours_found,
    ),
)


def geometry_table(reports: Sequence[Report]) -> Table | None:
    """The embedding cloud in numbers; None where no report has a geometry."""
    shapes = [report.geometry for report in reports]
    if not any(shapes):
        return None
    absent = "The geometry was not computed for this model."
    rows = []
    for name, hint, decimals, better, pick in _GEOMETRY:
        values = [pick(shape) if shape else None for shape in shapes]
        undefined = "Undefined: no positive pairs, or too few sentences."
        cells = [
            number(value, decimals, why=undefined if shape else absent)
            for value, shape in zip(values, shapes, strict=True)
        ]
        rows.append(Row(name, _with_change(values, cells, decimals, better), hint=hint))
    facts: tuple[tuple[str, str, Callable[[Geometry], str]], ...] = (
        ("Positive pairs", "", lambda shape: counted(shape.positives)),
        ("Sentences", "distinct", lambda shape: counted(shape.sentences)),
        ("Measured on", "", lambda shape: shape.source),
    )
    for name, hint, read in facts:
        cells = [Cell(read(shape)) if shape else Cell(DASH, absent) for shape in shapes]
        rows.append(Row(name, (*cells, *([Cell("")] if len(shapes) == 2 else [])), "fact", hint))
    sources = list(dict.fromkeys(shape.source for shape in shapes if shape))
    notes = ("The models were measured on different data; do not compare them.",)
    return Table(_columns(reports), tuple(rows), notes if len(sources) > 1 else ())


def environment_table(reports: Sequence[Report]) -> Table:
    """Library versions and the time each evaluation took."""
    names = dict.fromkeys(name for report in reports for name in report.versions)
    absent = "The version was not recorded for this model."
    rows = [Row("Time", tuple(duration(report.seconds) for report in reports))]
    for name in names:
        versions = [report.versions.get(name) for report in reports]
        cells = tuple(Cell(DASH, absent) if text is None else Cell(str(text)) for text in versions)
        rows.append(Row(name, cells))
    heads = roles(reports) if len(reports) > 1 else ("Value",)
    return Table(heads, tuple(rows))
