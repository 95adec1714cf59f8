"""Maps, neighbours and the worst pairs, for the report page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from simcse_kit.evaluation.report.details import SentenceMap
from simcse_kit.evaluation.report.numbers import DASH, Cell, counted, fixed
from simcse_kit.evaluation.report.tables import Row, Table, roles
from simcse_kit.evaluation.results import Report
from simcse_kit.utils.printable import one_line

__all__ = [
    "Drawing",
    "drawings",
    "miss_tables",
    "neighbour_tables",
]

WIDTH, HEIGHT = 400, 300
_MARGIN = 10
_SAMPLES = 6


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
        (one_line(sentence), tuple((one_line(text), fixed(cosine)) for text, cosine in near))
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
                    Cell(near[place][0], note=fixed(near[place][1]))
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
                    miss.sentence1,
                    (
                        Cell(miss.task),
                        Cell(f"{miss.gold:g}"),
                        Cell(fixed(miss.cosine)),
                        Cell(fixed(100 * miss.places[0], 0)),
                        Cell(fixed(100 * miss.places[1], 0)),
                    ),
                    second=miss.sentence2,
                )
                for miss in report.exhibit.misses
            )
            columns = ("Task", "Gold", "Cosine", "Place by gold", "by the model")
            title = "The ten worst pairs" if len(reports) == 1 else f"The ten worst pairs: {role}"
            tables.append((title, Table(columns, rows)))
    return tables
