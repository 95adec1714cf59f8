"""Graded sentence pairs from a user's own file."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from simcse_kit.data.bad_rows import shorten
from simcse_kit.data.files import COMPRESSED, check_file, format_of
from simcse_kit.data.graded import graded_columns_among, is_benchmark, is_number
from simcse_kit.data.json_records import not_text
from simcse_kit.data.read_options import DEFAULTS, ReadOptions
from simcse_kit.data.records import Records, read_records
from simcse_kit.data.remote import local_file
from simcse_kit.errors import DataError
from simcse_kit.evaluation.pair_set import PairSet, observed_scale
from simcse_kit.evaluation.tasks.files import PairCollector

__all__ = ["load_pairs_file"]

logger = logging.getLogger(__name__)

COLUMNS = ("score", "sentence1", "sentence2")
FORM = (
    "give score<TAB>sentence<TAB>sentence, or a first line that names the columns score, "
    "sentence1 and sentence2"
)
_Row = Sequence[str] | Mapping[str, Any]


def load_pairs_file(
    path: str | Path,
    split: str | None = None,
    *,
    if_present: bool = False,
    scale: tuple[float, float] | None = None,
) -> PairSet:
    """Read graded pairs: at least 3, UTF-8, with or without a byte order mark.

    The file has one of four forms: (1) .tsv or .csv rows of score, sentence, sentence; (2) the same
    with a header that names score, sentence1, sentence2 in any order, other columns allowed, and
    possibly a column ``split``; (3) STSBenchmark's ``sts-*.csv``, tab separated without header,
    recognised by a first line of 7 or more fields whose fifth is a number; (4) .jsonl, .json or
    .parquet records with the columns of (2). The columns may have the other names that training
    knows, such as label or similarity for the score, see
    :func:`~simcse_kit.data.graded.graded_columns_among`. Rows without a score are skipped and
    counted in the log.

    Args:
        path: The file; a string may also be an address, see
            :func:`~simcse_kit.data.remote.local_files`.
        split: Value of the column ``split`` in the rows to use; None uses all rows.
        if_present: Whether a file without column ``split`` is read whole instead of refused.
        scale: Lowest and highest score that a pair could have; None infers it, see
            :func:`~simcse_kit.evaluation.pair_set.observed_scale`.

    Returns:
        The pairs, named by the file's stem.

    Raises:
        DataError: The file cannot be read, a row is bad, a sentence is blank, a score is outside
            the scale, the split does not exist, or there are fewer than 3 pairs.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "dev.tsv")
        ...     _ = path.write_text("5\\tA cat\\tA cat\\n1\\tA cat\\tA dog\\n0\\tA cat\\tRain\\n")
        ...     pairs = load_pairs_file(path)
        >>> pairs.sentences2, pairs.gold.tolist(), pairs.scale
        (['A cat', 'A dog', 'Rain'], [5.0, 1.0, 0.0], (0.0, 5.0))
    """
    path = check_file(local_file(path))
    rows: Iterator[tuple[int, _Row]]
    if is_benchmark(path):
        pairs = _File(path, dict(zip(COLUMNS, (4, 5, 6), strict=True)), least=7, exact=False)
        rows = read_records(path, ReadOptions(format="tsv"))
    else:
        pairs, rows = _open(path)
    if split is not None and "split" not in pairs.columns:
        if not if_present:
            raise DataError(
                f"has no column 'split', so rows of split {split!r} cannot be chosen; add the "
                "column, or use all rows",
                file=path,
            )
        split = None
    pairs.scale = scale
    for line, fields in rows:
        pairs.add(line, fields, split)
    return pairs.done(split)


@dataclass
class _File:
    """Columns of one file, by number or key, and its rows so far."""

    path: Path
    columns: Mapping[str, Any]
    least: int
    exact: bool = True
    scale: tuple[float, float] | None = None
    ungraded: int = 0
    other_split: int = 0
    splits: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.pairs = PairCollector(self.path, "fill it or drop the row")

    def add(self, line: int, fields: _Row, split: str | None) -> None:
        if isinstance(fields, Mapping):
            fields = self._texts(line, fields)
        elif len(fields) < self.least or (self.exact and len(fields) > self.least):
            raise DataError(
                f"{len(fields)} fields; expected {'' if self.exact else 'at least '}{self.least}",
                file=self.path,
                line=line,
            )
        if "split" in self.columns:
            here = fields[self.columns["split"]]
            self.splits.add(here)
            if split is not None and here != split:
                self.other_split += 1
                return
        score, first, second = (fields[self.columns[name]] for name in COLUMNS)
        self.ungraded += not self.pairs.add(line, score, first, second, self.scale)

    def _texts(self, line: int, record: Mapping[str, Any]) -> dict[str, str]:
        """Return the columns of a record as texts; a missing score is an empty text."""
        found = {}
        for name, key in self.columns.items():
            value = record.get(key)
            if name.startswith("sentence") and not isinstance(value, str):
                raise DataError(not_text(key, value).message, file=self.path, line=line)
            found[key] = "" if value is None else str(value)
        return found

    def done(self, split: str | None) -> PairSet:
        count = len(self.pairs.gold)
        if self.ungraded:
            logger.warning("%s: skipped %d pairs without a score", self.path, self.ungraded)
        if split is not None:
            logger.info(
                "%s: using the %d rows of split %r, leaving %d of other splits",
                self.path,
                count,
                split,
                self.other_split,
            )
            if split not in self.splits:
                known = ", ".join(sorted(map(repr, self.splits))) or "none"
                raise DataError(f"no row has split {split!r}; splits: {known}", file=self.path)
        if count < 3:
            of_split = "" if split is None else f" of split {split!r}"
            raise DataError(
                f"{count} graded pairs{of_split}; a rank correlation needs at least 3",
                file=self.path,
            )
        scale = self.scale or observed_scale(np.array(self.pairs.gold))
        remedy = "" if self.scale else "; if it is another, give --scale LOWEST,HIGHEST"
        message = "%s: %d graded pairs, on a scale of %g to %g%s"
        logger.info(message, self.path, count, *scale, remedy)
        packed = self.path.suffix.lower() in COMPRESSED
        name = Path(self.path.stem).stem if packed else self.path.stem
        return self.pairs.done(name, scale)


def _open(path: Path) -> tuple[_File, Iterator[tuple[int, _Row]]]:
    """Find the columns by the first row, which is a header or a pair."""
    if format_of(path) in ("jsonl", "json", "parquet"):
        records = Records(path)
        columns = _columns(records.columns)
        if columns is None:
            raise DataError(
                f"the columns {shorten(', '.join(records.columns), 300)} are not those of graded "
                "pairs; call them sentence1, sentence2 and score",
                file=path,
                line=records.line,
            )
        return _File(path, columns, least=0), iter(records)
    rows = read_records(path, DEFAULTS)
    first: tuple[int, list[str]] = next(rows, (1, []))
    line, head = first
    columns = _columns(head)
    if columns is not None:
        names = [name.lower() for name in head]
        repeated = sorted(
            name for name in map(str.lower, columns.values()) if names.count(name) > 1
        )
        if repeated:
            raise DataError(
                f"the header names {', '.join(repeated)} more than once; rename the others",
                file=path,
                line=line,
            )
        places = {name: head.index(column) for name, column in columns.items()}
        return _File(path, places, least=len(names)), rows
    if len(head) != 3:
        raise DataError(
            f"{len(head)} fields {'' if len(head) < 2 else 'and no header '}in the first row; "
            f"{FORM}",
            file=path,
            line=line,
        )
    if head[0] and not _is_float(head[0]):
        raise DataError(
            f"the first row begins with {head[0][:60]!r}, which is neither a score nor part of a "
            f"known header; {FORM}",
            file=path,
            line=line,
        )
    pairs = _File(path, {name: index for index, name in enumerate(COLUMNS)}, least=3)
    return pairs, chain([first], rows)


def _columns(header: Sequence[str]) -> dict[str, str] | None:
    """Return the columns of score, sentences and possibly split; None if they are not named."""
    found = graded_columns_among(header)
    if found is None:
        return None
    first, second, score = found
    columns = dict(zip(COLUMNS, (score, first, second), strict=True))
    split = next((name for name in header if name.lower() == "split"), None)
    return columns if split is None else columns | {"split": split}


def _is_float(text: str) -> bool:
    return is_number(text) and "," not in text
