"""The sentences of an evaluation: their map, nearest neighbours, and the worst pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from simcse_kit.evaluation.report.numbers import counted, fixed
from simcse_kit.evaluation.report.score_tables import roles
from simcse_kit.evaluation.results import Report, SentenceMap
from simcse_kit.utils.printable import one_line
from simcse_kit.utils.tables import DASH, Cell, Row, Table

__all__ = ["Drawing", "drawings", "miss_tables", "neighbour_tables"]

WIDTH, HEIGHT = 400, 300
_MARGIN = 10
_SAMPLES = 6


@dataclass(frozen=True, slots=True)
class Drawing:
    """A sentence map in the coordinates of the page, WIDTH by HEIGHT.

    ``texts`` has for each point its sentence, and the nearest sentences with their cosines.
    """

    title: str
    points: tuple[tuple[float, float], ...]
    texts: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    caption: str


def drawings(reports: Sequence[Report]) -> tuple[Drawing, ...]:
    """Draw the map of every model that has one."""
    return tuple(
        _drawing("Sentences" if len(reports) == 1 else role, report.exhibit.map)
        for role, report in zip(roles(reports), reports, strict=True)
        if report.exhibit and report.exhibit.map
    )


def _drawing(title: str, found: SentenceMap) -> Drawing:
    across, upward = zip(*found.points, strict=True)
    # Both axes share one scale, so that distances in the picture can be compared.
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
        for x, y in found.points
    )
    texts = tuple(
        (one_line(sentence), tuple((one_line(text), fixed(cosine)) for text, cosine in near))
        for sentence, near in zip(found.sentences, found.neighbours, strict=True)
    )
    first, second = (fixed(100 * share, 1) for share in found.shares)
    caption = (
        f"{counted(len(points))} sentences of {found.source}, on the first two principal axes of "
        f"their unit vectors ({first} and {second} % of the variance)."
    )
    return Drawing(title, points, texts, caption)


def neighbour_tables(reports: Sequence[Report]) -> list[tuple[str, Table]]:
    """Tabulate the nearest sentences of a sample by every model, nearest first."""
    maps = [report.exhibit.map if report.exhibit else None for report in reports]
    known = next((one for one in maps if one), None)
    if known is None:
        return []
    heads = roles(reports) if len(reports) > 1 else ("Nearest, with the cosine",)
    count = min(_SAMPLES, len(known.sentences))
    tables = []
    for index in range(count):
        sentence = known.sentences[index * (len(known.sentences) - 1) // max(1, count - 1)]
        lists = [
            one.neighbours[one.sentences.index(sentence)]
            if one and sentence in one.sentences
            else ()
            for one in maps
        ]
        rows = [
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
        tables.append((sentence, Table(heads, tuple(rows))))
    return tables


def miss_tables(reports: Sequence[Report]) -> list[tuple[str, Table]]:
    """Tabulate per model the pairs whose rank by cosine is farthest from that by gold score."""
    columns = ("Task", "Gold", "Cosine", "Place by gold", "by the model")
    tables = []
    for role, report in zip(roles(reports), reports, strict=True):
        misses = report.exhibit.misses if report.exhibit else ()
        rows = []
        for miss in misses:
            places = (fixed(100 * place, 0) for place in miss.places)
            texts = (miss.task, f"{miss.gold:g}", fixed(miss.cosine), *places)
            cells = tuple(map(Cell, texts))
            rows.append(Row(miss.sentence1, cells, kind="pair", second=miss.sentence2))
        if rows:
            title = "The ten worst pairs" if len(reports) == 1 else f"The ten worst pairs: {role}"
            tables.append((title, Table(columns, tuple(rows), head="Pair")))
    return tables
