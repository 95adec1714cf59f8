"""Rows with named values: which keys hold the texts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from simcse_kit.data.bad_rows import Problem, shorten
from simcse_kit.data.columns import FLAG_COLUMNS, FLAG_EXTRAS, choose_columns, is_negative
from simcse_kit.data.json_values import not_text
from simcse_kit.data.row_layouts import labelled_row, row_texts

__all__ = ["ObjectLayout"]


@dataclass(frozen=True, slots=True)
class ObjectLayout:
    """Which keys of a record hold its texts.

    Args:
        fixed: key of the anchor and, unless the rows are single texts, of the positive.
        negatives: keys of the hard negatives.
        named: the user named the keys; others are then ignored and those of ``negatives`` are the
            only ones read. Otherwise every key must be a recognised one.
        label: key of the label of labelled rows.
        optional: a record may have no hard negative.
        extras: keys that are recognised and not read.
    """

    fixed: tuple[str, ...]
    negatives: tuple[str, ...]
    named: bool
    label: str | None = None
    optional: bool = False
    extras: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        keys: Sequence[str],
        columns: Sequence[str] | None,
        *,
        file: str | Path,
        line: int | None,
        label: str | None = None,
    ) -> ObjectLayout:
        """The layout of a file whose first record has ``keys``.

        Raises:
            DataError: a wanted key is missing, or the keys are not recognised.
        """
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

    def of_a_table(self, columns: Collection[str]) -> ObjectLayout:
        """The same for records that all have these keys, so that none can be unexpected."""
        kept = tuple(key for key in self.negatives if key in columns)
        return replace(self, negatives=kept, named=True)

    def read_keys(self) -> tuple[str, ...]:
        """All keys that are read."""
        return (*self.fixed, *self.negatives, *(() if self.label is None else (self.label,)))

    def rows(self, record: Mapping[str, Any]) -> list[tuple[str, ...]] | Problem:
        """The training rows of one record, or what is wrong with it.

        A list of positives gives a row for each of them, all with the same hard negatives.
        """
        for key in self.fixed:
            if key not in record:
                return Problem("missing key", f"no key {key!r}; the keys are {_keys(record)}")
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
            row = row_texts((anchor.strip(),), negatives)
            return row if isinstance(row, Problem) else [row]
        value = record[self.fixed[1]]
        positives = value if isinstance(value, list) else [value]
        if not positives:
            return Problem("no positive", f"{self.fixed[1]!r} is an empty list; give a positive")
        rows: list[tuple[str, ...]] = []
        for positive in positives:
            if not isinstance(positive, str):
                return not_text(self.fixed[1], positive)
            row = row_texts((anchor.strip(), positive.strip()), negatives)
            if isinstance(row, Problem):
                return row
            rows.append(row)
        return rows

    def has_negative(self, record: Mapping[str, Any]) -> bool:
        """Whether a record has a hard negative that is no blank."""
        found = self._found_negatives(record)
        return not isinstance(found, Problem) and any(found)

    def _labelled(self, anchor: str, record: Mapping[str, Any]) -> list[tuple[str, ...]] | Problem:
        second = record[self.fixed[1]]
        if not isinstance(second, str):
            return not_text(self.fixed[1], second)
        value = record.get(self.label or "")
        # JSON's true is no number.
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        label = repr(value) if number or not isinstance(value, str) else value
        row = labelled_row((anchor.strip(), second.strip()), label)
        return row if isinstance(row, Problem) else [row]

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
            problem = _add_negatives(found, key, record.get(key))
            if problem is not None:
                return problem
        return found

    def _unexpected(self, key: str) -> Problem:
        expected = ", ".join((*self.fixed, *self.negatives))
        return Problem(
            "unexpected key",
            f"unexpected key {shorten(key)}; the first row has {expected}; name the keys to read "
            f"with --columns {','.join((*self.fixed, *self.negatives))}",
        )


def _add_negatives(found: list[str], key: str, value: Any) -> Problem | None:
    """Append the hard negatives in ``value``: a string, a list of strings, or nothing (null)."""
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, str):
            found.append(item.strip())
        elif item is not None:
            return not_text(key, item)
    return None


def _keys(record: Mapping[str, Any]) -> str:
    return shorten(", ".join(record))
