"""Columns: which one is the anchor, the positive, the hard negatives. Nothing is guessed."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from simcse_kit.errors import ConfigError, DataError
from simcse_kit.registry import closest
from simcse_kit.text.report import Problem, shorten

__all__ = [
    "TableLayout",
    "are_positions",
    "check_columns",
    "check_label",
    "choose_columns",
    "is_negative",
    "labelled_row",
    "row_texts",
    "table_layout",
]

RECOGNISED = (
    "sent0[,sent1[,hard_neg...]] | text | sentence | sentence1,sentence2 | "
    "anchor,positive[,negative...]"
)
_SINGLE = (("sent0",), ("text",), ("sentence",))
_PAIRS = (("sent0", "sent1"), ("sentence1", "sentence2"), ("anchor", "positive"))
_WITH_NEGATIVES = (("sent0", "sent1"), ("anchor", "positive"))
_NEGATIVE = re.compile(r"(?:hard_neg|negative)(?:_?[0-9]+)?")
_NEGATIVE_LISTS = frozenset({"hard_negs", "negatives"})


def check_columns(columns: Sequence[str] | None) -> tuple[str, ...] | None:
    """``columns`` as a tuple; None (or nothing) means: recognise the header.

    Raises:
        ConfigError: a column is empty or named twice, or names and positions are mixed.
    """
    if isinstance(columns, str):
        raise ConfigError(f"columns is the text {columns!r}; give a list such as ['0', '1']")
    if not columns:
        return None
    names = tuple(column.strip() for column in columns)
    given = ",".join(names)
    if not all(names):
        raise ConfigError(f"columns {given!r} has an empty name; give a,b,c or 0,1")
    if len(set(names)) < len(names):
        raise ConfigError(f"columns {given!r} names a column twice; name each once")
    if len({_is_position(name) for name in names}) > 1:
        raise ConfigError(
            f"columns {given!r} mixes names and positions; give names (a,b,c), or positions (0,1) "
            "for a file with no header line"
        )
    return names


def check_label(label: str | None, columns: tuple[str, ...] | None) -> str | None:
    """The name or position of the column with the label, checked against the others.

    Raises:
        ConfigError: it is empty, one of ``columns``, or a name where those are positions.
    """
    if label is None:
        return None
    name = label.strip()
    if not name:
        raise ConfigError("data.label is empty; give the name of the column, such as label")
    if columns is not None:
        given = ",".join(columns)
        if name in columns:
            raise ConfigError(f"data.label {name!r} is among the texts, --columns {given}")
        if are_positions(columns) != _is_position(name):
            raise ConfigError(
                f"data.label {name!r} and --columns {given}: give names for both, or positions"
            )
        if len(columns) != 2:
            raise ConfigError(
                f"labelled rows have two texts, but --columns {given} names {len(columns)}"
            )
    return name


def are_positions(columns: Sequence[str] | None) -> bool:
    """True if ``columns`` are positions, counted from 0, and the file so has no header line."""
    return bool(columns) and all(_is_position(column) for column in columns or ())


def is_negative(name: str, *, lists: bool) -> bool:
    """True if a column called ``name`` holds hard negatives; ``lists``: the format has lists."""
    return bool(_NEGATIVE.fullmatch(name)) or (lists and name in _NEGATIVE_LISTS)


def choose_columns(
    header: Sequence[str],
    columns: Sequence[str] | None,
    *,
    file: str | Path,
    line: int | None,
    lists: bool = False,
    label: str | None = None,
) -> tuple[str, ...]:
    """The columns to read, in the order anchor, positive, hard negatives; or two texts, label.

    Args:
        header: the names the file has.
        columns: the names the user wants, or None to recognise them.
        file: named in messages.
        line: the line of the header, named in messages.
        lists: the format may hold a list of hard negatives in one column.
        label: the column that holds a number, if rows are labelled.

    Raises:
        DataError: a name occurs twice, a wanted one is missing, or the header is not recognised.
    """
    for index, name in enumerate(header):
        if name and name in header[:index]:
            raise DataError(
                f"column {shorten(name)} occurs twice in the header; rename one",
                file=file,
                line=line,
            )
    if label is not None:
        texts = [name for name in header if name != label] if columns is None else columns
        names = choose_columns(texts, None, file=file, line=line) if columns is None else columns
        if len(names) != 2:
            raise DataError(
                f"labelled rows have two texts and a label, but {','.join(names)} are "
                f"{len(names)} texts; name two with --columns a,b",
                file=file,
                line=line,
            )
        columns = (*names, label)
    if columns is not None:
        for name in columns:
            if name not in header:
                raise DataError(
                    f"no column {name!r}{closest(name, list(header))}; "
                    f"the columns are {shorten(','.join(header), 300)}",
                    file=file,
                    line=line,
                )
        return tuple(columns)
    negatives = [name for name in header if is_negative(name, lists=lists)]
    fixed = {name for name in header if name not in negatives}
    for names in _WITH_NEGATIVES if negatives else _SINGLE + _PAIRS:
        if fixed == set(names) and "" not in header:
            return (*names, *negatives)
    raise DataError(
        f"the header {shorten(','.join(header), 300)} is not one of: {RECOGNISED}; name the "
        "columns with --columns a,b,c, or give positions --columns 0,1 for a file with no header "
        "line",
        file=file,
        line=line,
    )


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
        indices = tuple(list(first).index(name) for name in names)
    return TableLayout(indices, width, separator, label is not None)


def _is_position(name: str) -> bool:
    return name.isascii() and name.isdigit()
