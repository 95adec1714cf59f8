"""Tables of a model's embedding space, of its evaluation data, and of its environment."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from simcse_kit.encoder.token_counts import TokenCounts, percent
from simcse_kit.evaluation.contamination.check import LeakReport
from simcse_kit.evaluation.report.numbers import Better, compared, counted, duration, text_cells
from simcse_kit.evaluation.report.score_tables import model_columns, roles
from simcse_kit.evaluation.results import Geometry, Report
from simcse_kit.utils.tables import Cell, Row, Table

__all__ = ["data_table", "environment_table", "geometry_table", "leak_table"]

_LOST = ("Cut", "Unknown", "Equal")
# Displayed digits of a SHA-256.
_SHORT = 12

_MEASURES: tuple[tuple[str, str, str, int, Better], ...] = (
    ("alignment", "Alignment", "closeness of positives; lower is better", 4, "lower"),
    ("uniformity", "Uniformity", "evenness of the spread; lower is better", 4, "lower"),
    ("mean_cosine", "Mean cosine", "of two sentences; near 1 is a narrow cone", 4, "neither"),
    ("dimension_std", "Dimension std", "spread within one dimension", 4, "neither"),
    ("effective_rank", "Effective rank", "dimensions in real use", 1, "neither"),
    ("iso_score", "IsoScore", "1: all dimensions used alike", 4, "neither"),
    ("tolerance", "Tolerance", "mean cosine of positives", 4, "neither"),
    ("hubness", "Hubness", "0: no sentence is a neighbour of most others", 2, "lower"),
    (
        "neighbours_found",
        "Positives found",
        "share among the 10 nearest; higher is better",
        4,
        "higher",
    ),
)
_FACTS: tuple[tuple[str, str, Callable[[Geometry], str]], ...] = (
    ("Positive pairs", "", lambda shape: counted(shape.positives)),
    ("Sentences", "distinct", lambda shape: counted(shape.sentences)),
    ("Measured on", "", lambda shape: shape.source),
)


def geometry_table(reports: Sequence[Report]) -> Table | None:
    """Tabulate the shape of the embedding space; None if no report has it."""
    shapes = [report.geometry for report in reports]
    if not any(shapes):
        return None
    absent = "The geometry was not computed for this model."
    undefined = "Undefined: no positive pairs, or too few sentences."
    reasons = [undefined if shape else absent for shape in shapes]
    rows = []
    for field, name, hint, decimals, better in _MEASURES:
        values = [getattr(shape, field) if shape else None for shape in shapes]
        rows.append(Row(name, compared(values, reasons, decimals, better), hint=hint))
    for name, hint, read in _FACTS:
        cells = text_cells((read(shape) if shape else None for shape in shapes), absent)
        cells += (Cell(""),) if len(shapes) == 2 else ()
        rows.append(Row(name, cells, "fact", hint))
    sources = {shape.source for shape in shapes if shape}
    notes = ("The models were measured on different data; do not compare them.",)
    columns = model_columns(reports)
    return Table(columns, tuple(rows), notes if len(sources) > 1 else (), head="Quantity")


def data_table(reports: Sequence[Report]) -> Table | None:
    """Tabulate the data of every task, and what each tokenizer loses; None if it is not known."""
    audits = [report.exhibit.audit if report.exhibit else () for report in reports]
    known = next((audit for audit in audits if audit), ())
    if not known:
        return None
    several = len(reports) > 1
    lost = [f"{name}, {role}" if several else name for role in roles(reports) for name in _LOST]
    columns = ("Pairs", "Sentences", "Repeated", "Words, median", "most", *lost, "SHA-256")
    rows = []
    for number, task in enumerate(known):
        counts = (task.pairs, task.sentences, task.repeated, *task.words)
        cells = [Cell(counted(count)) for count in counts]
        for audit in audits:
            cells += _lost(audit[number].tokens if number < len(audit) else None)
        rows.append(Row(task.task, (*cells, Cell(task.fingerprint[:_SHORT]))))
    note = (
        "Repeated: pairs that occur more than once, in either order. Cut: distinct sentences with "
        "more tokens than the model accepts. Unknown: share of tokens that are missing from the "
        "model's vocabulary. Equal: distinct sentences with the same token ids, and so the same "
        "vector, as another sentence. The fingerprint covers sentences and scores."
    )
    return Table(columns, tuple(rows), (note,), head="Task")


def _lost(tokens: TokenCounts | None) -> tuple[Cell, ...]:
    if tokens is None:
        return text_cells([None] * len(_LOST), "The tokenizer of this model is not known.")
    unknown = percent(tokens.unknown_share) if tokens.unknown else "0"
    return Cell(counted(tokens.cut)), Cell(unknown), Cell(counted(tokens.same_ids))


def leak_table(
    reports: Sequence[Report], leaks: Sequence[LeakReport | None], names: Sequence[str]
) -> Table | None:
    """Tabulate the test pairs with a sentence in the training text; None if no text is known."""
    if not any(leaks):
        return None

    def shown(leak: LeakReport | None, name: str) -> str | None:
        found = leak.sets.get(name) if leak else None
        return None if found is None else f"{counted(found.touched)} of {counted(found.pairs)}"

    unknown = "The training text of this model is not known."
    rows = tuple(Row(name, text_cells((shown(x, name) for x in leaks), unknown)) for name in names)
    note = (
        "Sentences with the same letters and digits as a sentence in the files that the model's "
        "run.toml names; simcse data check-leak also finds near copies and contained sentences, "
        "and scores the clean pairs."
    )
    heads = roles(reports) if len(reports) > 1 else ("Pairs in the training text",)
    return Table(heads, rows, (note,), head="Task")


def environment_table(reports: Sequence[Report]) -> Table:
    """Tabulate the time of each evaluation, library versions, and fingerprints of the models."""
    rows = [Row("Time", tuple(duration(report.seconds) for report in reports))]
    for name in dict.fromkeys(name for report in reports for name in report.versions):
        versions = (report.versions.get(name) for report in reports)
        rows.append(Row(name, text_cells(versions, "The version was not recorded for this model.")))
    weights = [report.exhibit.weights if report.exhibit else None for report in reports]
    if any(weights):
        short = (digest and digest[:_SHORT] for digest in weights)
        cells = text_cells(short, "The model was not loaded from a folder.")
        rows.append(Row("Model files, SHA-256", cells))
    heads = roles(reports) if len(reports) > 1 else ("Value",)
    return Table(heads, tuple(rows), head="Item")
