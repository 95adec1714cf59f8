"""The data of an evaluation and the weights it was made with, as tables of the report page."""

from __future__ import annotations

from collections.abc import Sequence

from simcse_kit.encoder.token_counts import TokenCounts, percent
from simcse_kit.evaluation.contamination.check import LeakReport
from simcse_kit.evaluation.report.numbers import DASH, Cell, counted
from simcse_kit.evaluation.report.tables import Row, Table, roles
from simcse_kit.evaluation.results import Report

__all__ = ["audit_table", "fingerprint_row", "leak_table"]

_LOST = ("Cut", "Unknown", "Equal")
# Digits of a SHA-256 that are shown.
_SHORT = 12


def audit_table(reports: Sequence[Report]) -> Table | None:
    """The data of every task; what is cut, unknown and made equal, for each model."""
    known = [report for report in reports if report.exhibit and report.exhibit.audit]
    if not known:
        return None
    several = len(reports) > 1
    lost = tuple(
        f"{name}, {role}" if several else name for role in roles(reports) for name in _LOST
    )
    columns = ("Pairs", "Sentences", "Repeated", "Words, median", "most", *lost, "SHA-256")
    first = known[0].exhibit
    assert first is not None
    rows = []
    for number, task in enumerate(first.audit):
        cells = [
            Cell(counted(value))
            for value in (task.pairs, task.sentences, task.repeated, *task.words)
        ]
        for report in reports:
            found = report.exhibit.audit if report.exhibit else ()
            cells += _lost_cells(found[number].tokens if number < len(found) else None)
        rows.append(Row(task.task, (*cells, Cell(task.fingerprint[:_SHORT]))))
    note = (
        "Repeated: pairs that stand there before, in either order. Cut: distinct sentences of more "
        "tokens than the model takes. Unknown: share of the tokens that are not in the model's "
        "vocabulary. Equal: distinct sentences that become the token ids of another one, and so "
        "its vector. The fingerprint is of sentences and scores."
    )
    return Table(columns, tuple(rows), (note,))


def _lost_cells(tokens: TokenCounts | None) -> list[Cell]:
    if tokens is None:
        return [Cell(DASH, "What its tokenizer does is not known.") for _ in _LOST]
    unknown = percent(tokens.unknown_share) if tokens.unknown else "0"
    return [Cell(counted(tokens.cut)), Cell(unknown), Cell(counted(tokens.same_ids))]


def leak_table(
    reports: Sequence[Report], leaks: Sequence[LeakReport | None], names: Sequence[str]
) -> Table | None:
    """Pairs of every task of which the training text holds a sentence; None where none is known."""
    if not any(leaks):
        return None
    unknown = "The training text of this model is not known."
    rows = tuple(
        Row(
            name,
            tuple(
                Cell(f"{counted(leak.sets[name].touched)} of {counted(leak.sets[name].pairs)}")
                if leak and name in leak.sets
                else Cell(DASH, unknown)
                for leak in leaks
            ),
        )
        for name in names
    )
    note = (
        "Sentences with the same letters and digits in the files that the model's run.toml names; "
        "simcse data check-leak finds near copies and contained sentences too, and scores the "
        "clean pairs."
    )
    heads = roles(reports) if len(reports) > 1 else ("Pairs in the training text",)
    return Table(heads, rows, (note,))


def fingerprint_row(reports: Sequence[Report]) -> Row | None:
    """The weights of every model, as a row of the environment; None where none is known."""
    weights = [report.exhibit.weights if report.exhibit else None for report in reports]
    if not any(weights):
        return None
    cells = [
        Cell(digest[:_SHORT]) if digest else Cell(DASH, "The model's weights are not in a folder.")
        for digest in weights
    ]
    return Row("Weights, SHA-256", tuple(cells))
