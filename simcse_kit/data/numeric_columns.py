"""Text columns that hold nothing but numbers, which are grades or ids and no text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from simcse_kit.data.columns import graded_remedy
from simcse_kit.errors import DataError

__all__ = ["is_number", "without_number_columns"]

# One or two numbers may be sentences; a column of them is none.
_FEWEST = 3


def is_number(text: str) -> bool:
    """Whether a text is a number such as 3, 0.5, 1,5 or nan, and nothing else."""
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True


class _Column:
    """One column, as long as it has held numbers only."""

    def __init__(self) -> None:
        self.rows = 0
        self.first = ""
        self.least = float("inf")
        self.most = float("-inf")

    def add(self, text: str) -> None:
        if not self.rows:
            self.first = text
        self.rows += 1
        value = float(text.replace(",", "."))
        self.least, self.most = min(self.least, value), max(self.most, value)


def without_number_columns(
    rows: Iterable[tuple[str, ...]],
    names: Sequence[str],
    *,
    file: str | Path,
    texts: int | None = None,
) -> Iterator[tuple[str, ...]]:
    """Pass rows on; at the end refuse the file if a column had numbers in every row.

    Args:
        rows: the rows of one file, as tuples of texts.
        names: the columns that the texts come from, in the order of the texts.
        file: the file, named in the message.
        texts: how many values of a row are texts; None for all.

    Raises:
        DataError: there is such a column, and it has at least three rows.
    """
    suspects: dict[int, _Column] | None = None
    for row in rows:
        if suspects is None:
            suspects = {place: _Column() for place in range(len(row) if texts is None else texts)}
        if suspects:
            for place, column in list(suspects.items()):
                if place >= len(row):
                    continue
                if is_number(row[place]):
                    column.add(row[place])
                else:
                    del suspects[place]
        yield row
    for place, column in (suspects or {}).items():
        if column.rows >= _FEWEST:
            raise DataError(_message(place, column, names), file=file)


def _message(place: int, column: _Column, names: Sequence[str]) -> str:
    name = names[min(place, len(names) - 1)]
    what = f"column {name!r} holds numbers only, such as {column.first!r}, which are no text"
    if place < 2:
        return f"{what}; name the columns that hold text with --columns a,b,c"
    threshold = f"{(column.least + column.most) / 2:g}"
    return f"{what}; {graded_remedy(name, names[:2], threshold)}; otherwise leave it out"
