"""Maps, neighbours, the worst pairs, the data and fingerprints, for the report page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from simcse_kit.evaluation.exhibit import SentenceMap
from simcse_kit.evaluation.leaks.check import LeakReport
from simcse_kit.evaluation.report.numbers import DASH, Cell, counted, fixed
from simcse_kit.evaluation.report.tables import Row, Table, roles
from simcse_kit.evaluation.results import Report

__all__ = [
    "Drawing",
    "audit_table",
    "drawings",
    "fingerprint_table",
    "leak_table",
    "miss_tables",
    "neighbour_tables",
]

WIDTH, HEIGHT = 400, 300
_MARGIN = 10
_SAMPLES = 6
_SHORT = 12


@dataclass(frozen=True, slots=True)
class Drawing:
    """A map as the page draws it.

    Attributes:
        title: whose it is.
        points: (x, y) in the figure, WIDTH by HEIGHT, to a tenth.
        said: what is shown of each point: its sentence, then its neighbours with their cosines.
        caption: shares of the variance, and where the sentences are from.
    """

    title: str
    points: tuple[tuple[float, float], ...]
    said: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    caption: str


def drawings(reports: Sequence[Report]) -> list[Drawing]:
    """The map of every model that has one."""
    found = []
    for role, report in zip(roles(reports), reports, strict=True):
        shown = report.exhibit and report.exhibit.map
        if shown:
            found.append(_drawing("Sentences" if len(reports) == 1 else role, shown))
    return found


def _drawing(title: str, shown: SentenceMap) -> Drawing:
    across, upward = zip(*shown.points, strict=True)
    # One scale for both axes: distances in the map are then those along the two axes.
    wide, high = max(across) - min(across), max(upward) - min(upward)
    scale = min(
        (room - 2 * _MARGIN) / extent if extent else math.inf
        for room, extent in ((WIDTH, wide), (HEIGHT, high))
    )
    scale = scale if math.isfinite(scale) else 1.0
    middle = (max(across) + min(across)) / 2, (max(upward) + min(upward)) / 2
    points = tuple(
        (
            round(WIDTH / 2 + (x - middle[0]) * scale, 1),
            round(HEIGHT / 2 - (y - middle[1]) * scale, 1),
        )
        for x, y in shown.points
    )
    said = tuple(
        (sentence, tuple((text, fixed(cosine)) for text, cosine in near))
        for sentence, near in zip(shown.sentences, shown.neighbours, strict=True)
    )
    first, second = (fixed(100 * share, 1) for share in shown.shares)
    caption = (
        f"{counted(len(points))} sentences of {shown.source}, on the first two principal axes of "
        f"their unit vectors ({first} and {second} % of the variance)."
    )
    return Drawing(title, points, said, caption)


def neighbour_tables(reports: Sequence[Report]) -> list[tuple[str, Table]]:
    """A table a sample sentence: its nearest sentences by every model, nearest first."""
    maps = [report.exhibit.map if report.exhibit else None for report in reports]
    known = next((one for one in maps if one), None)
    if known is None:
        return []
    count = min(_SAMPLES, len(known.sentences))
    rows = [index * (len(known.sentences) - 1) // max(1, count - 1) for index in range(count)]
    tables = []
    for row in rows:
        sentence = known.sentences[row]
        lists = [
            one.neighbours[one.sentences.index(sentence)]
            if one and sentence in one.sentences
            else ()
            for one in maps
        ]
        lines = [
            Row(
                f"{place + 1}",
                tuple(
                    Cell(f"{near[place][0]} ({fixed(near[place][1])})")
                    if place < len(near)
                    else Cell(DASH, "There is no map of this model.")
                    for near in lists
                ),
                kind="fact",
            )
            for place in range(max(map(len, lists)))
        ]
        heads = roles(reports) if len(reports) > 1 else ("Nearest, with the cosine",)
        tables.append((sentence, Table(heads, tuple(lines))))
    return tables


def miss_tables(reports: Sequence[Report]) -> list[tuple[str, Table]]:
    """The pairs that each model places worst."""
    tables = []
    for role, report in zip(roles(reports), reports, strict=True):
        if report.exhibit and report.exhibit.misses:
            rows = tuple(
                Row(
                    f"{miss.sentence1} / {miss.sentence2}",
                    (
                        Cell(miss.task),
                        Cell(f"{miss.gold:g}"),
                        Cell(fixed(miss.cosine)),
                        Cell(fixed(100 * miss.places[0], 0)),
                        Cell(fixed(100 * miss.places[1], 0)),
                    ),
                )
                for miss in report.exhibit.misses
            )
            columns = ("Task", "Gold", "Cosine", "Place by gold", "by the model")
            title = "The ten worst pairs" if len(reports) == 1 else f"The ten worst pairs: {role}"
            tables.append((title, Table(columns, rows)))
    return tables


def audit_table(reports: Sequence[Report]) -> Table | None:
    """The data of every task; what is cut, for each model."""
    known = [report for report in reports if report.exhibit and report.exhibit.audit]
    if not known:
        return None
    several = len(reports) > 1
    cut = tuple(f"Cut, {role}" if several else "Cut" for role in roles(reports))
    columns = ("Pairs", "Sentences", "Repeated", "Words, median", "most", *cut, "SHA-256")
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
            count = found[number].cut if number < len(found) else None
            known_cut = Cell(DASH, "How long a text it takes is not known.")
            cells.append(known_cut if count is None else Cell(counted(count)))
        rows.append(Row(task.task, (*cells, Cell(task.fingerprint[:_SHORT]))))
    note = (
        "Repeated: pairs that stand there before, in either order. Cut: distinct sentences of more "
        "tokens than the model takes. The fingerprint is of sentences and scores."
    )
    return Table(columns, tuple(rows), (note,))


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
        "Exact matches, but for case, punctuation and spacing, in the files that the model's "
        "run.toml names; simcse data check-leak finds near ones too, and scores the clean pairs."
    )
    heads = roles(reports) if len(reports) > 1 else ("Pairs in the training text",)
    return Table(heads, rows, (note,))


def fingerprint_table(reports: Sequence[Report]) -> Row | None:
    """The weights of every model, as a row of the environment; None where none is known."""
    weights = [report.exhibit.weights if report.exhibit else None for report in reports]
    if not any(weights):
        return None
    cells = [
        Cell(digest[:_SHORT]) if digest else Cell(DASH, "The model's weights are not in a folder.")
        for digest in weights
    ]
    return Row("Weights, SHA-256", tuple(cells))
