"""Graded sentence pairs from a user's own .tsv or .csv file."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np

from simcse_kit.data.files import COMPRESSED, check_file, format_of
from simcse_kit.data.graded import is_benchmark, is_number
from simcse_kit.data.read_options import DEFAULTS, ReadOptions
from simcse_kit.data.records import read_records
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


def load_pairs_file(
    path: str | Path, split: str | None = None, *, if_present: bool = False
) -> PairSet:
    """Read graded pairs: at least 3, UTF-8, with or without a byte order mark.

    The file has one of three forms: (1) .tsv or .csv rows of score, sentence, sentence; (2) the
    same with a header that names score, sentence1, sentence2 in any order, other columns allowed,
    and possibly a column ``split``; (3) STSBenchmark's ``sts-*.csv``, tab separated without header,
    recognised by a first line of 7 or more fields whose fifth is a number. Rows without a score are
    skipped and counted in the log. The scale is inferred, see
    :func:`~simcse_kit.evaluation.pair_set.observed_scale`.

    Args:
        path: The file.
        split: Value of the column ``split`` in the rows to use; None uses all rows.
        if_present: Whether a file without column ``split`` is read whole instead of refused.

    Returns:
        The pairs, named by the file's stem.

    Raises:
        DataError: The file cannot be read, a row is bad, a sentence is blank, the split does not
            exist, or there are fewer than 3 pairs.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "dev.tsv")
        ...     _ = path.write_text("5\\tA cat\\tA cat\\n1\\tA cat\\tA dog\\n0\\tA cat\\tRain\\n")
        ...     pairs = load_pairs_file(path)
        >>> pairs.sentences2, pairs.gold.tolist(), pairs.scale
        (['A cat', 'A dog', 'Rain'], [5.0, 1.0, 0.0], (0.0, 5.0))
    """
    path = check_file(path)
    rows: Iterator[tuple[int, Sequence[str]]]
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
    for line, fields in rows:
        pairs.add(line, fields, split)
    return pairs.done(split)


@dataclass
class _File:
    """Columns of one file, and its rows so far."""

    path: Path
    columns: dict[str, int]
    least: int
    exact: bool = True
    ungraded: int = 0
    other_split: int = 0
    splits: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.pairs = PairCollector(self.path, "fill it or drop the row")

    def add(self, line: int, fields: Sequence[str], split: str | None) -> None:
        if len(fields) < self.least or (self.exact and len(fields) > self.least):
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
        self.ungraded += not self.pairs.add(line, score, first, second)

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
        scale = observed_scale(np.array(self.pairs.gold))
        logger.info("%s: %d graded pairs, on a scale of %g to %g", self.path, count, *scale)
        packed = self.path.suffix.lower() in COMPRESSED
        name = Path(self.path.stem).stem if packed else self.path.stem
        return self.pairs.done(name, scale)


def _open(path: Path) -> tuple[_File, Iterator[tuple[int, Sequence[str]]]]:
    """Find the columns by the first row, which is a header or a pair."""
    format = format_of(path)
    if format not in ("txt", "csv", "tsv"):
        raise DataError(
            f"graded pairs are not read from .{format} files; write .tsv or .csv", file=path
        )
    rows = read_records(path, DEFAULTS)
    line, head = next(rows, (1, []))
    names = [name.lower() for name in head]
    if set(COLUMNS) <= set(names):
        repeated = sorted({name for name in (*COLUMNS, "split") if names.count(name) > 1})
        if repeated:
            raise DataError(
                f"the header names {', '.join(repeated)} more than once; rename the others",
                file=path,
                line=line,
            )
        wanted = {name: names.index(name) for name in (*COLUMNS, "split") if name in names}
        return _File(path, wanted, least=len(names)), rows
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
    return pairs, chain([(line, head)], rows)


def _is_float(text: str) -> bool:
    return is_number(text) and "," not in text
