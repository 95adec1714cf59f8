"""Mapping of the columns of a record to the texts of a training row."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from simcse_kit.data.bad_rows import Problem, shorten
from simcse_kit.data.columns import (
    FLAG_COLUMNS,
    FLAG_EXTRAS,
    are_positions,
    choose_columns,
    is_negative,
)
from simcse_kit.data.delimited import ragged_row
from simcse_kit.data.files import FileFormat
from simcse_kit.data.graded import SCORE_NAMES, graded_columns, graded_remedy
from simcse_kit.data.json_records import not_text
from simcse_kit.data.read_options import ReadOptions
from simcse_kit.errors import DataError

__all__ = ["RecordLayout", "TableLayout"]

Texts = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TableLayout:
    """Places of the texts in a row of fields.

    Args:
        names: Columns that are read, for messages.
        indices: Field numbers from 0 in the order anchor, positive, hard negatives.
        width: Number of fields that a row must have.
        format: ``csv`` or ``tsv``, for messages.
        labelled: Whether the third index is that of the label.
        wider: Whether a row may have more fields than ``width``.
    """

    names: tuple[str, ...]
    indices: tuple[int, ...]
    width: int
    format: FileFormat
    labelled: bool = False
    wider: bool = False

    @classmethod
    def of(
        cls,
        header: Sequence[str],
        options: ReadOptions,
        *,
        file: str | Path,
        line: int | None,
        format: FileFormat,
    ) -> TableLayout:
        """Find the layout of a .csv or .tsv file from its names or positions of columns.

        Raises:
            DataError: A column is missing or the header is not recognised.
        """
        width, label = len(header), _label_of(header, options)
        if are_positions(options.columns):
            wanted = (*(options.columns or ()), *(() if label is None else (label,)))
            indices = tuple(map(int, wanted))
            if max(indices) >= width:
                raise DataError(
                    f"no column at position {max(indices)}: the first row has {width}, "
                    f"counted from 0 to {width - 1}",
                    file=file,
                    line=line,
                )
        else:
            wanted = choose_columns(header, options.columns, file=file, line=line, label=label)
            place = {name: index for index, name in enumerate(header)}
            indices = tuple(place[name] for name in wanted)
        names = tuple(header[index] for index in indices)
        return cls(names, indices, width, format, label is not None)

    def rows(self, fields: Sequence[str]) -> tuple[Texts, ...] | Problem:
        """Return the training row of a row of stripped fields, or the problem with it.

        Fields missing at the end count as blank if all of them are hard negatives.
        """
        found = len(fields)
        if self.labelled:
            if found < self.width or (found > self.width and not self.wider):
                return ragged_row(self.width, found, self.format)
            first, second, label = (fields[index] for index in self.indices)
            return _labelled_row((first, second), label)
        negatives = self.indices[2:]
        kept = [fields[index] for index in negatives if index < found]
        if found != self.width:
            missing = range(found, self.width)
            if not missing or not any(kept) or not set(missing) <= set(negatives):
                return ragged_row(self.width, found, self.format)
        return _row([fields[index] for index in self.indices[:2]], kept if negatives else None)


@dataclass(frozen=True, slots=True)
class RecordLayout:
    """Keys of the texts in a record.

    Args:
        fixed: Key of the anchor and, unless rows are single texts, of the positive.
        negatives: Keys of the hard negatives.
        named: Whether other keys are ignored and the hard negatives are those of ``negatives``
            only. Otherwise every key must be a recognised one.
        label: Key of the label of labelled rows.
        optional: Whether a record may lack hard negatives.
        extras: Recognised keys that are not read.
    """

    fixed: tuple[str, ...]
    negatives: tuple[str, ...]
    named: bool
    label: str | None = None
    optional: bool = False
    extras: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls, keys: Sequence[str], options: ReadOptions, *, file: str | Path, line: int | None
    ) -> RecordLayout:
        """Find the layout of a file whose first record has ``keys``.

        Raises:
            DataError: A wanted key is missing, or the keys are not recognised.
        """
        columns, label = options.columns, _label_of(keys, options)
        names = choose_columns(keys, columns, file=file, line=line, lists=True, label=label)
        if label is not None:
            return cls(names[:2], (), True, label)
        flag = names == FLAG_COLUMNS
        return cls(
            names[:2],
            names[2:],
            columns is not None,
            optional=flag,
            extras=FLAG_EXTRAS if flag else frozenset(),
        )

    def for_columns(self, columns: Collection[str]) -> RecordLayout:
        """Adapt the layout to records that all have the keys ``columns``."""
        kept = tuple(key for key in self.negatives if key in columns)
        return replace(self, negatives=kept, named=True)

    @property
    def names(self) -> tuple[str, ...]:
        """All keys that are read."""
        return (*self.fixed, *self.negatives, *(() if self.label is None else (self.label,)))

    def rows(self, record: Mapping[str, Any]) -> Sequence[Texts] | Problem:
        """Return the training rows of a record, or the problem with it.

        A list of positives gives a row for each of them, all with the same hard negatives.
        """
        for key in self.fixed:
            if key not in record:
                keys = shorten(", ".join(record))
                return Problem("missing key", f"no key {key!r}; the keys are {keys}")
        anchor = record[self.fixed[0]]
        if not isinstance(anchor, str):
            return not_text(self.fixed[0], anchor)
        if self.label is not None:
            return self._labelled(anchor, record)
        found = self._found_negatives(record)
        if isinstance(found, Problem):
            return found
        negatives = found if self.negatives and (any(found) or not self.optional) else None
        if len(self.fixed) == 1:
            return _row((anchor.strip(),), negatives)
        value = record[self.fixed[1]]
        positives = value if isinstance(value, list) else [value]
        if not positives:
            return Problem("no positive", f"{self.fixed[1]!r} is an empty list; give a positive")
        rows: list[Texts] = []
        for positive in positives:
            if not isinstance(positive, str):
                return not_text(self.fixed[1], positive)
            row = _row((anchor.strip(), positive.strip()), negatives)
            if isinstance(row, Problem):
                return row
            rows += row
        return rows

    def has_negative(self, record: Mapping[str, Any]) -> bool:
        """Check whether a record has a hard negative that is not blank."""
        found = self._found_negatives(record)
        return not isinstance(found, Problem) and any(found)

    def _labelled(self, anchor: str, record: Mapping[str, Any]) -> tuple[Texts, ...] | Problem:
        second = record[self.fixed[1]]
        if not isinstance(second, str):
            return not_text(self.fixed[1], second)
        value = record.get(self.label or "")
        # JSON's true is not a number.
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        label = repr(value) if number or not isinstance(value, str) else value
        return _labelled_row((anchor.strip(), second.strip()), label)

    def _found_negatives(self, record: Mapping[str, Any]) -> list[str] | Problem:
        keys: Sequence[str] = self.negatives
        if not self.named:
            keys = [key for key in record if key not in self.fixed and key not in self.extras]
            for key in keys:
                known = key in self.negatives or is_negative(key, lists=True)
                if not (self.negatives and known):
                    return self._unexpected(key)
        found: list[str] = []
        for key in keys:
            value = record.get(key)
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, str):
                    found.append(item.strip())
                elif isinstance(item, (int, float)) and key.lower() in SCORE_NAMES:
                    remedy = graded_remedy(key, self.fixed)
                    return Problem("value is not text", f"{key!r} is a number; {remedy}")
                elif item is not None:
                    return not_text(key, item)
        return found

    def _unexpected(self, key: str) -> Problem:
        expected = (*self.fixed, *self.negatives)
        return Problem(
            "unexpected key",
            f"unexpected key {shorten(key)}; the first row has {', '.join(expected)}; name the "
            f"keys to read with --columns {','.join(expected)}",
        )


def _label_of(header: Sequence[str], options: ReadOptions) -> str | None:
    """Return the column of the label: the given one, or the score of a header of graded pairs."""
    if options.label is not None or options.columns is not None:
        return options.label
    found = graded_columns(header)
    return None if found is None else found[2]


def _row(fixed: Sequence[str], negatives: Sequence[str] | None) -> tuple[Texts, ...] | Problem:
    """Make a training row of stripped texts: anchor, positive if any, hard negatives if any."""
    if not fixed[0]:
        return Problem("blank anchor", "the anchor (first column) is blank; fill it in")
    if len(fixed) > 1 and not fixed[1]:
        return Problem("blank positive", "the positive (second column) is blank; fill it in")
    if negatives is None:
        return (tuple(fixed),)
    kept = [negative for negative in negatives if negative]
    if not kept:
        return Problem(
            "no hard negative", "every hard negative is blank; give this row at least one"
        )
    return ((*fixed, *kept),)


def _labelled_row(fixed: Sequence[str], label: str) -> tuple[Texts, ...] | Problem:
    """Make a row of two stripped texts and the label, which is checked and stays a string."""
    row = _row(fixed, None)
    if isinstance(row, Problem):
        return row
    try:
        good = math.isfinite(float(label))
    except ValueError:
        good = False
    if not good:
        return Problem(
            "bad label",
            f"the label is {shorten(label)}; write a finite number, or leave such rows out with "
            "--on-bad-row skip",
        )
    return ((*fixed, label),)
