"""Removal of duplicate rows: exact, equal up to case, punctuation and spacing, or near."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from simcse_kit.data.bad_rows import ReadReport
from simcse_kit.data.prepare.minhash import LEAST_THRESHOLD, NearDuplicates
from simcse_kit.data.prepare.normalize import normal_key
from simcse_kit.data.prepare.output import Summary, check_output, writing
from simcse_kit.data.read_options import DEFAULTS, ReadOptions
from simcse_kit.data.records import Records, reading_progress
from simcse_kit.data.remote import local_file
from simcse_kit.errors import ConfigError, DataError

__all__ = [
    "DuplicateRules",
    "Level",
    "Marker",
    "dedupe",
    "digest",
    "mark_rows",
    "remove_duplicates",
]

EXACT = "exact duplicates"
NORMAL = "duplicates up to case, punctuation and spacing"

Level = Literal["exact", "normal", "near"]
"""Similarity of rows that count as duplicates; each level includes the ones before it."""


@dataclass(frozen=True, slots=True)
class DuplicateRules:
    """Rules for duplicates, as the arguments of :func:`dedupe`.

    Raises:
        ConfigError: A value is not allowed.
    """

    level: Level = "normal"
    threshold: float = 0.8
    by: Literal["row", "anchor"] = "row"

    def __post_init__(self) -> None:
        if self.level not in get_args(Level):
            raise ConfigError(f"level is {self.level!r}; allowed: {', '.join(get_args(Level))}")
        if self.by not in ("row", "anchor"):
            raise ConfigError(f"by is {self.by!r}; allowed: row, anchor")
        if not LEAST_THRESHOLD <= self.threshold <= 1:
            raise ConfigError(f"threshold is {self.threshold}; allowed: {LEAST_THRESHOLD} to 1")


Marker = Callable[[Iterable[tuple[str, ...]], DuplicateRules, Summary], bytearray]
"""Function that marks rows with 1 to keep them or 0, and counts the others in a summary."""


def dedupe(
    file: str | Path,
    output: str | Path,
    options: ReadOptions = DEFAULTS,
    *,
    level: Level = "normal",
    threshold: float = 0.8,
    by: Literal["row", "anchor"] = "row",
    overwrite: bool = False,
) -> Summary:
    """Write the rows of a file without duplicates, keeping the first of each with all its columns.

    The file is read twice, a row at a time. Memory holds about 100 bytes per row and level, and for
    ``near`` the normal keys and :class:`~simcse_kit.data.prepare.minhash.NearDuplicates`.

    Args:
        file: A file of any format that training reads.
        output: The file to write.
        options: Options of reading, such as the text columns.
        level: ``exact`` compares the text; ``normal`` ignores case, punctuation and spacing, see
            :func:`~simcse_kit.data.prepare.normalize.normal_key`; ``near`` compares the shared runs
            of 4 characters without spaces.
        threshold: Share of runs of 4 characters that near duplicates have in common, 0.5 to 1.
        by: Whether all texts of a ``row`` are compared, or only the first, the ``anchor``.
        overwrite: Whether an existing ``output`` may be replaced.

    Raises:
        DataError: The file cannot be read, or its columns are not recognised.
        ConfigError: An argument is not allowed.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "in.txt")
        ...     _ = path.write_text("A cat sat.\\na cat sat\\nIt rains.\\n", encoding="utf-8")
        ...     summary = dedupe(path, Path(folder, "out.txt"))
        >>> summary.rows, summary.left_out
        (2, {'duplicates up to case, punctuation and spacing': 1})
    """
    return remove_duplicates(
        file, output, options, DuplicateRules(level, threshold, by), overwrite=overwrite
    )


def remove_duplicates(
    file: str | Path,
    output: str | Path,
    options: ReadOptions,
    rules: DuplicateRules,
    *,
    mark: Marker | None = None,
    overwrite: bool = False,
) -> Summary:
    """Write the rows of a file that ``mark`` keeps; by default as :func:`dedupe`."""
    check_output(output, overwrite=overwrite)
    file = local_file(file)
    report = ReadReport()
    with reading_progress([file, file]) as on_bytes:
        first = Records(file, options, report=report, on_bytes=on_bytes)
        columns = first.text_columns()
        target = check_output(output, overwrite=overwrite, columns=len(first.columns))
        summary = Summary(str(target))
        compared = slice(None) if rules.by == "row" else slice(1)
        rows = (texts[compared] for _, _, texts in first.with_texts(columns))
        kept = (mark or mark_rows)(rows, rules, summary)
        summary.read = len(kept)
        if not summary.read:
            skipped = report.summary()
            why = f"no row is left; skipped {skipped}" if skipped else "no row under the header"
            raise DataError(why, file=file)
        second = Records(file, options, on_bytes=on_bytes)
        with writing(target, second.columns, header=second.header) as writer:
            at = 0
            for _, record, _ in second.with_texts(columns):
                if at < len(kept) and kept[at]:
                    writer.write(record)
                at += 1
            if at != len(kept):
                raise DataError("changed while it was read; try again", file=file)
        summary.rows = writer.rows
    summary.take(report)
    return summary


def mark_rows(
    rows: Iterable[tuple[str, ...]], rules: DuplicateRules, summary: Summary
) -> bytearray:
    """Mark the first row of each group of duplicates with 1 and the others with 0."""
    seen = _Seen(rules.level, rules.threshold, summary)
    kept = bytearray(map(seen.is_new, rows))
    seen.remove_near(kept)
    return kept


class _Seen:
    """Rows seen so far, by level."""

    def __init__(self, level: Level, threshold: float, summary: Summary):
        self._level = level
        self._summary = summary
        self._exact: set[bytes] = set()
        self._normal: set[bytes] = set()
        self._near = NearDuplicates(threshold)

    def is_new(self, texts: Sequence[str]) -> bool:
        """Check whether a row is new up to the level ``normal``, and remember it."""
        if not _add(texts, self._exact):
            self._summary.leave_out(EXACT)
            return False
        if self._level == "exact":
            return True
        keys = tuple(map(normal_key, texts))
        if not _add(keys, self._normal):
            self._summary.leave_out(NORMAL)
            return False
        if self._level == "near":
            self._near.add(keys)
        return True

    def remove_near(self, kept: bytearray) -> None:
        """Set the near duplicates among the kept rows to 0."""
        if self._level != "near" or not kept:
            return
        keep = self._near.keep()
        places = np.flatnonzero(np.frombuffer(bytes(kept), dtype=np.uint8))
        for place in places[~keep].tolist():
            kept[place] = 0
        if len(keep) > keep.sum():
            what = near_reason(self._near.threshold)
            self._summary.leave_out(what, int(len(keep) - keep.sum()))


def near_reason(threshold: float) -> str:
    """Return the name under which near duplicates are counted."""
    return f"near duplicates ({threshold:g})"


def digest(texts: Sequence[str]) -> bytes:
    """Return 16 bytes that differ for different texts."""
    return hashlib.blake2b("\0".join(texts).encode(), digest_size=16).digest()


def _add(texts: Sequence[str], seen: set[bytes]) -> bool:
    """Add a digest of texts to ``seen``; return whether it was new."""
    found = digest(texts)
    if found in seen:
        return False
    seen.add(found)
    return True
