"""Where the texts of a row of fields are, and what makes a row of texts bad."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from simcse_kit.data.bad_rows import Problem, shorten
from simcse_kit.data.columns import are_positions, choose_columns
from simcse_kit.errors import DataError

__all__ = ["TableLayout", "labelled_row", "row_texts", "table_layout"]


def row_texts(fixed: Sequence[str], negatives: Sequence[str] | None) -> tuple[str, ...] | Problem:
    """One training row, or what is wrong with it.

    Args:
        fixed: anchor and, if the file has one, positive; stripped.
        negatives: the hard negatives, stripped, blank ones included; None if the file has none.
    """
    if not fixed[0]:
        return Problem("blank anchor", "the anchor (first column) is blank; fill it in")
    if len(fixed) > 1 and not fixed[1]:
        return Problem("blank positive", "the positive (second column) is blank; fill it in")
    if negatives is None:
        return tuple(fixed)
    kept = [negative for negative in negatives if negative]
    if not kept:
        return Problem(
            "no hard negative", "every hard negative is blank; give this row at least one"
        )
    return (*fixed, *kept)


def labelled_row(fixed: Sequence[str], label: str) -> tuple[str, ...] | Problem:
    """Two texts and their label, still a string; or what is wrong with them.

    Args:
        fixed: both texts; stripped.
        label: the label as it was written.
    """
    row = row_texts(fixed, None)
    if isinstance(row, Problem):
        return row
    try:
        good = math.isfinite(float(label))
    except ValueError:
        good = False
    if not good:
        return Problem("bad label", f"the label is {shorten(label)}; write a finite number")
    return (*row, label)


@dataclass(frozen=True, slots=True)
class TableLayout:
    """Where the texts of a row are.

    Args:
        indices: field numbers from 0 in the order anchor, positive, hard negatives.
        width: number of fields a row must have.
        separator: the name of what separates fields, for messages.
        labelled: the third of the indices is that of the label.
    """

    indices: tuple[int, ...]
    width: int
    separator: str
    labelled: bool = False

    def texts(self, fields: Sequence[str]) -> tuple[str, ...] | Problem:
        """The texts of one row of stripped fields, or what is wrong with it.

        Fields missing at the end are taken for blank where all of them are hard negatives.
        """
        found = len(fields)
        if self.labelled:
            if found != self.width:
                return self._ragged(found)
            first, second, label = (fields[index] for index in self.indices)
            return labelled_row((first, second), label)
        negatives = self.indices[2:]
        kept = [fields[index] for index in negatives if index < found]
        if found != self.width:
            missing = range(found, self.width)
            if not missing or not any(kept) or not set(missing) <= set(negatives):
                return self._ragged(found)
        fixed = [fields[index] for index in self.indices[:2]]
        return row_texts(fixed, kept if negatives else None)

    def _ragged(self, found: int) -> Problem:
        remedy = (
            "quote a field that holds a comma" if self.separator == "comma" else "check the tabs"
        )
        return Problem(
            "wrong number of fields",
            f"ragged row: expected {self.width} fields, found {found}; {remedy}",
        )


def table_layout(
    first: Sequence[str],
    columns: Sequence[str] | None,
    *,
    file: str | Path,
    line: int,
    separator: str,
    label: str | None = None,
) -> TableLayout:
    """The layout of a .csv or .tsv file, from its first row.

    Args:
        first: the header or, where ``columns`` are positions, the first row of data.
        columns: wanted columns, or None to recognise the header.
        file: named in messages.
        line: the line where ``first`` begins.
        separator: ``comma`` or ``tab``, named in messages.
        label: the column that holds a number, if rows are labelled.

    Raises:
        DataError: a column is missing or the header is not recognised.
    """
    width = len(first)
    if columns is not None and are_positions(columns):
        indices = tuple(int(column) for column in (*columns, *([] if label is None else [label])))
        if max(indices) >= width:
            raise DataError(
                f"no column at position {max(indices)}: the first row has {width}, "
                f"counted from 0 to {width - 1}",
                file=file,
                line=line,
            )
    else:
        names = choose_columns(first, columns, file=file, line=line, label=label)
        place = {name: index for index, name in enumerate(first)}
        indices = tuple(place[name] for name in names)
    return TableLayout(indices, width, separator, label is not None)
