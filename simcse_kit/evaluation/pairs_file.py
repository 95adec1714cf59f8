"""A user's own graded pairs, from .tsv or .csv."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from simcse_kit.data.files import COMPRESSED, check_file
from simcse_kit.data.readers import read_rows
from simcse_kit.errors import DataError
from simcse_kit.evaluation.pair_set import PairSet, observed_scale
from simcse_kit.evaluation.tasks.sts_files import parse_score, read_lines, tidy

__all__ = ["load_pairs_file"]

logger = logging.getLogger(__name__)

COLUMNS = ("score", "sentence1", "sentence2")
FORM = (
    "give score<TAB>sentence<TAB>sentence, or a first line that names the columns score, "
    "sentence1 and sentence2"
)
_PEEK = 1 << 20


def load_pairs_file(
    path: str | Path, split: str | None = None, *, if_present: bool = False
) -> PairSet:
    """Read graded pairs: at least 3, UTF-8, with or without a byte order mark.

    Three forms: (1) .tsv or .csv rows of score, sentence, sentence; (2) the same with a header
    line naming score, sentence1, sentence2 in any order, other columns allowed, and maybe a column
    ``split``; (3) that of STSBenchmark's ``sts-*.csv``, tab separated without header, recognised
    by a first line of 7 or more fields whose fifth is a number. A row without a score is skipped,
    and the log says how many were. The scale is inferred, see
    :func:`~simcse_kit.evaluation.pair_set.observed_scale`.

    Args:
        path: the file.
        split: take only rows with this value in the column ``split``; None takes all rows.
        if_present: where the file has no column ``split``, take all its rows instead of raising.

    Returns:
        The pairs, named by the file's stem.

    Raises:
        DataError: unreadable file, a bad row (with its line), a blank sentence, no such split,
            fewer than 3 pairs.
    """
    path = check_file(path)
    if _is_benchmark(path):
        table = _Table(path, dict(zip(COLUMNS, (4, 5, 6), strict=True)), least=7, exact=False)
        rows = _benchmark_rows(path)
    else:
        rows = iter(read_rows(path))
        table, rows = _open(path, rows)
    if split is not None and "split" not in table.columns:
        if not if_present:
            raise DataError(
                f"has no column 'split', so rows of split {split!r} cannot be picked; add the "
                "column, or use all rows",
                file=path,
            )
        split = None
    for line, fields in rows:
        table.add(line, fields, split)
    return table.done(split)


@dataclass
class _Table:
    """The columns of one file, and the rows taken from it so far."""

    path: Path
    columns: dict[str, int]
    least: int
    exact: bool = True
    first: list[str] = field(default_factory=list)
    second: list[str] = field(default_factory=list)
    gold: list[float] = field(default_factory=list)
    ungraded: int = 0
    other_split: int = 0
    splits: set[str] = field(default_factory=set)

    def add(self, line: int, fields: list[str], split: str | None) -> None:
        if len(fields) < self.least or (self.exact and len(fields) > self.least):
            raise DataError(
                f"{len(fields)} fields; expected {'' if self.exact else 'at least '}{self.least}",
                file=self.path,
                line=line,
            )
        if "split" in self.columns:
            here = fields[self.columns["split"]].strip()
            self.splits.add(here)
            if split is not None and here != split:
                self.other_split += 1
                return
        score = fields[self.columns["score"]].strip()
        first, second = (tidy(fields[self.columns[name]]) for name in COLUMNS[1:])
        if not first or not second:
            which = "sentence1" if not first else "sentence2"
            raise DataError(f"{which} is blank; fill it or drop the row", file=self.path, line=line)
        if not score:
            self.ungraded += 1
            return
        self.gold.append(parse_score(score, None, self.path, line))
        self.first.append(first)
        self.second.append(second)

    def done(self, split: str | None) -> PairSet:
        if self.ungraded:
            logger.warning("%s: skipped %d pairs without a score", self.path, self.ungraded)
        if split is not None:
            logger.info(
                "%s: using the %d rows of split %r, leaving %d of other splits",
                self.path,
                len(self.gold),
                split,
                self.other_split,
            )
            if split not in self.splits:
                known = ", ".join(sorted(map(repr, self.splits))) or "none"
                raise DataError(f"no row has split {split!r}; splits: {known}", file=self.path)
        if len(self.gold) < 3:
            of_split = "" if split is None else f" of split {split!r}"
            raise DataError(
                f"{len(self.gold)} graded pairs{of_split}; a rank correlation takes at least 3",
                file=self.path,
            )
        gold = np.array(self.gold, dtype=np.float64)
        scale = observed_scale(gold)
        logger.info(
            "%s: %d graded pairs, taken to be on a scale of %g to %g", self.path, len(gold), *scale
        )
        return PairSet(_stem(self.path), self.first, self.second, gold, scale)


Rows = Iterator[tuple[int, list[str]]]


def _open(path: Path, rows: Rows) -> tuple[_Table, Rows]:
    """Learn the columns from the first row, which is a header or a pair."""
    line, head = next(rows, (1, []))
    names = [name.strip().lower() for name in head]
    if set(COLUMNS) <= set(names):
        doubled = sorted({name for name in (*COLUMNS, "split") if names.count(name) > 1})
        if doubled:
            raise DataError(
                f"the header names {', '.join(doubled)} more than once; rename the others",
                file=path,
                line=line,
            )
        wanted = {name: names.index(name) for name in (*COLUMNS, "split") if name in names}
        return _Table(path, wanted, least=len(names)), rows
    if len(head) != 3:
        raise DataError(
            f"{len(head)} fields {'' if len(head) < 2 else 'and no header '}in the first row; "
            f"{FORM}",
            file=path,
            line=line,
        )
    if not _is_number(head[0]) and head[0].strip():
        raise DataError(
            f"the first row begins with {head[0][:60]!r}, which is neither a score nor part of a "
            f"known header; {FORM}",
            file=path,
            line=line,
        )
    table = _Table(path, {name: index for index, name in enumerate(COLUMNS)}, least=3)
    return table, _chain((line, head), rows)


def _chain(first: tuple[int, list[str]], rest: Iterable[tuple[int, list[str]]]) -> Rows:
    yield first
    yield from rest


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_benchmark(path: Path) -> bool:
    """Whether the first line looks like one of STSBenchmark's files."""
    try:
        with path.open("rb") as stream:
            head = stream.readline(_PEEK).decode("utf-8", "replace").removeprefix("\ufeff")
    except OSError:
        return False  # read_rows has the message
    fields = head.rstrip("\r\n").split("\t")
    return len(fields) >= 7 and _is_number(fields[4])


def _benchmark_rows(path: Path) -> Rows:
    for line, text in enumerate(read_lines(path), start=1):
        yield line, text.split("\t")


def _stem(path: Path) -> str:
    packed = path.suffix.lower() in COMPRESSED
    return Path(path.stem).stem if packed else path.stem
