"""Files without duplicates: exact, equal up to case, punctuation and spacing, or near."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from simcse_kit.data.bad_rows import OnBadRow, ReadReport
from simcse_kit.data.lines import OnBytes
from simcse_kit.data.prepare.minhash import LEAST_THRESHOLD, NearRows
from simcse_kit.data.prepare.named_rows import Records, headed, reading
from simcse_kit.data.prepare.normalize import normal_key
from simcse_kit.data.prepare.output import check_output, writing
from simcse_kit.data.prepare.summary import Summary
from simcse_kit.errors import ConfigError, DataError

__all__ = ["Level", "dedupe"]

Level = Literal["exact", "normal", "near"]
"""How alike rows must be to count as duplicates; each level takes the ones before it in."""


def dedupe(
    file: str | Path,
    output: str | Path,
    *,
    level: Level = "normal",
    threshold: float = 0.8,
    by: Literal["row", "anchor"] = "row",
    columns: Sequence[str] | None = None,
    format: str | None = None,
    on_bad_row: OnBadRow = "error",
    overwrite: bool = False,
) -> Summary:
    """Write the rows of a file without duplicates: the first of each stays, with all its columns.

    The file is read twice, a row at a time. Kept in memory are about 100 bytes a row and level, and
    for ``near`` the normal keys and what :class:`~simcse_kit.data.prepare.minhash.NearRows` needs.

    Args:
        file: any file that training reads; its other columns are kept.
        output: the file to write.
        level: ``exact`` text; ``normal``: case, punctuation and spacing do not count, see
            :func:`~simcse_kit.data.prepare.normalize.normal_key`; or ``near``.
        threshold: of ``near``: shared runs of 4 characters over all of two texts, without spaces;
            0.5 to 1.
        by: what must be alike: all texts of a ``row``, or its first, the ``anchor``.
        columns: those of the texts, by name or by position; recognised if None.
        format: what the file is, whatever its suffix.
        on_bad_row: raise at the first bad row, or skip bad rows and count them.
        overwrite: an existing ``output`` may be replaced.

    Raises:
        DataError: the file cannot be read, or its columns are not recognised.
        ConfigError: an argument is wrong.
    """
    if level not in get_args(Level):
        raise ConfigError(f"level is {level!r}; allowed: {', '.join(get_args(Level))}")
    if by not in ("row", "anchor"):
        raise ConfigError(f"by is {by!r}; allowed: row, anchor")
    if not LEAST_THRESHOLD <= threshold <= 1:
        raise ConfigError(f"threshold is {threshold}; allowed: {LEAST_THRESHOLD} to 1")
    check_output(output, overwrite=overwrite)

    def read(report: ReadReport, on_bytes: OnBytes) -> Records:
        return Records(
            file,
            header=headed(columns),
            format=format,
            on_bad_row=on_bad_row,
            report=report,
            on_bytes=on_bytes,
        )

    report = ReadReport()
    with reading([file, file]) as on_bytes:
        first = read(report, on_bytes)
        chosen = first.text_columns(columns)
        target = check_output(output, overwrite=overwrite, columns=len(first.columns))
        summary = Summary(str(target))
        stays = _stays(first, chosen, level, threshold, by, summary)
        if not summary.read:
            skipped = report.summary()
            why = f"no row is left; skipped {skipped}" if skipped else "no row under the header"
            raise DataError(why, file=file)
        second = read(ReadReport(), on_bytes)
        with writing(target, second.columns, header=second.header) as writer:
            at = 0
            for record, _ in second.good(chosen):
                if at < len(stays) and stays[at]:
                    writer.write(record)
                at += 1
            if at != len(stays):
                raise DataError("changed while it was read; try again", file=file)
        summary.rows = writer.rows
    summary.take(report)
    return summary


def _stays(
    records: Records,
    columns: Sequence[str],
    level: Level,
    threshold: float,
    by: str,
    summary: Summary,
) -> bytearray:
    """1 for each good row that stays, 0 for each other."""
    exact: set[bytes] = set()
    normal: set[bytes] = set()
    near = NearRows(threshold)
    stays = bytearray()
    for _, texts in records.good(columns):
        summary.read += 1
        if by == "anchor":
            texts = texts[:1]
        new = _is_new(texts, exact)
        if not new:
            summary.leave_out("exact duplicates")
        elif level != "exact":
            keys = tuple(map(normal_key, texts))
            new = _is_new(keys, normal)
            if not new:
                summary.leave_out("duplicates up to case, punctuation and spacing")
            elif level == "near":
                near.add(keys)
        stays.append(new)
    if level == "near":
        keep = near.keep()
        places = np.flatnonzero(np.frombuffer(stays, dtype=np.uint8))
        for place in places[~keep].tolist():
            stays[place] = 0
        if len(keep) > keep.sum():
            summary.leave_out(f"near duplicates ({threshold:g})", int(len(keep) - keep.sum()))
    return stays


def _is_new(texts: tuple[str, ...], seen: set[bytes]) -> bool:
    digest = hashlib.blake2b("\0".join(texts).encode(), digest_size=16).digest()
    if digest in seen:
        return False
    seen.add(digest)
    return True
