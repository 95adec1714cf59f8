"""Train, dev and test parts that share no anchor."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from simcse_kit.data.bad_rows import OnBadRow, ReadReport
from simcse_kit.data.files import suffix_of
from simcse_kit.data.prepare.connected_rows import Keys, components, rows_of
from simcse_kit.data.prepare.named_rows import Records, headed, reading
from simcse_kit.data.prepare.output import check_output, writing
from simcse_kit.data.prepare.summary import Summary
from simcse_kit.errors import ConfigError, DataError

__all__ = ["PARTS", "assign", "parse_parts", "split"]

PARTS = ("train", "dev", "test")


def parse_parts(text: str) -> tuple[float, float]:
    """``dev,test`` sizes as two counts (whole numbers), or two shares (``0.1,0.1``).

    Raises:
        ConfigError: it is neither, or nothing is left for the train part.
    """
    parts = [part.strip() for part in text.split(",")]
    problem = ConfigError(
        f"--dev-test {text!r}; give two counts such as 1000,1000, or two shares such as 0.1,0.1 "
        "that leave something to train on"
    )
    if len(parts) != 2:
        raise problem
    try:
        if all(part.isdigit() for part in parts):
            found: tuple[float, float] = (int(parts[0]), int(parts[1]))
        else:
            found = (float(parts[0]), float(parts[1]))
            if not all(0 <= share < 1 for share in found) or sum(found) >= 1:
                raise problem
    except ValueError:
        raise problem from None
    if not any(found):
        raise problem
    return found


def assign(groups: Mapping[bytes, int], wanted: tuple[int, int], seed: int) -> dict[bytes, int]:
    """Which part each group goes to: 0 train, 1 dev, 2 test.

    Groups are gone through in an order drawn by the seed, which does not depend on that of the
    file; each goes to the test part if it still fits there, else to dev, else to train.

    Args:
        groups: key -> rows.
        wanted: most rows of dev and of test.
        seed: any number.
    """
    salt = str(seed).encode()
    order = sorted(
        groups, key=lambda key: hashlib.blake2b(key, digest_size=16, key=salt[:64]).digest()
    )
    room = [0, *wanted]
    parts: dict[bytes, int] = {}
    for key in order:
        size = groups[key]
        part = next((part for part in (2, 1) if size <= room[part]), 0)
        room[part] -= size if part else 0
        parts[key] = part
    return parts


def split(
    file: str | Path,
    output: str | Path,
    *,
    dev_test: str = "0.1,0.1",
    by: Literal["anchor", "texts"] = "anchor",
    seed: int = 0,
    columns: Sequence[str] | None = None,
    format: str | None = None,
    on_bad_row: OnBadRow = "error",
    overwrite: bool = False,
) -> Summary:
    """Write ``train``, ``dev`` and ``test`` files into a folder, each in the order of the input.

    Rows whose anchors have the same letters and digits stay together, and so a part may be a few
    rows smaller than asked for. Near copies may go to different parts, unless
    :func:`~simcse_kit.data.prepare.dedupe.dedupe` with level ``near`` has removed them before. The
    file is read twice; kept in memory are about 100 bytes a row.

    Args:
        file: any file that training reads; all its columns are kept.
        output: the folder; made if needed.
        dev_test: see :func:`parse_parts`.
        by: rows stay together that share an ``anchor``, or any of their ``texts``, also through
            other rows.
        seed: of the draw.
        columns: those of the texts, by name or by position; recognised if None.
        format: what the file is, whatever its suffix.
        on_bad_row: raise at the first bad row, or skip bad rows and count them.
        overwrite: existing parts may be replaced.

    Raises:
        DataError: the file cannot be read, or a part would be empty.
        ConfigError: an argument is wrong.
    """
    if by not in ("anchor", "texts"):
        raise ConfigError(f"by is {by!r}; allowed: anchor, texts")
    sizes = parse_parts(dev_test)
    folder = Path(output)
    report = ReadReport()
    first = Records(
        file, header=headed(columns), format=format, on_bad_row=on_bad_row, report=report
    )
    targets = _targets(folder, _suffix(first), sizes, overwrite)
    chosen = first.text_columns(columns)
    keys, rows = _groups(first, chosen, by)
    total = len(rows)
    groups = Counter(keys[number] for number in rows)
    wanted = [size if isinstance(size, int) else round(size * total) for size in sizes]
    parts = assign(groups, (wanted[0], wanted[1]), seed)
    filled = Counter[int]()
    for key, count in groups.items():
        filled[parts[key]] += count
    for number in targets:
        if not filled[number]:
            raise DataError(
                f"the {PARTS[number]} part would be empty: {total} rows in {len(groups)} groups of "
                f"the same {by}, --dev-test {dev_test}; ask for other sizes",
                file=file,
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"--output {folder} cannot be made: {reason}") from None
    with ExitStack() as stack:
        writers = {
            number: stack.enter_context(writing(target, first.columns, header=first.header))
            for number, target in targets.items()
        }
        on_bytes = stack.enter_context(reading([file]))
        second = Records(
            file, header=headed(columns), format=format, on_bad_row=on_bad_row, on_bytes=on_bytes
        )
        at = 0
        for record, _ in second.good(chosen):
            if at < total:
                writers[parts[keys[rows[at]]]].write(record)
            at += 1
        if at != total:
            raise DataError("changed while it was read; try again", file=file)
    summary = Summary(str(folder), rows=total, read=total)
    summary.take(report)
    for number, target in targets.items():
        summary.figures[str(target)] = filled[number]
    summary.figures["groups"] = len(groups)
    return summary


def _targets(
    folder: Path, suffix: str, sizes: tuple[float, float], overwrite: bool
) -> dict[int, Path]:
    """The file of each part that is asked for."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--output {folder} is a file; give the name of a folder")
    targets = {
        number: folder / f"{PARTS[number]}{suffix}"
        for number, size in enumerate((1, *sizes))
        if size
    }
    if folder.exists():
        for target in targets.values():
            check_output(target, overwrite=overwrite)
    return targets


def _groups(
    records: Records, columns: Sequence[str], by: str
) -> tuple[list[bytes], NDArray[np.int64]]:
    """Keys of the groups, and the number of its group for each good row."""
    keys = Keys()
    for _, texts in records.good(columns):
        keys.add(texts[:1] if by == "anchor" else filter(None, texts))
    counts, digests = keys.counts, keys.digests
    owners = rows_of(counts)
    _, numbers = np.unique(components(digests[:, 0], owners, len(counts)), return_inverse=True)
    # A group goes by the least of its keys, whichever came first in the file.
    group = numbers[owners]
    order = np.lexsort((digests[:, 1], digests[:, 0], group))
    first = order[np.searchsorted(group[order], np.arange(numbers.max(initial=-1) + 1))]
    return [key.tobytes() for key in digests[first]], numbers


def _suffix(records: Records) -> str:
    """That of the parts: the input's own, but .jsonl for .json and .parquet, and no .bz2 or .xz."""
    if records.format in ("json", "parquet"):
        return ".jsonl"
    plain = f".{records.format}"
    return f"{plain}.gz" if suffix_of(records.path) == f"{plain}.gz" else plain
