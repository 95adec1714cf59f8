"""Division of rows into parts that share no text, such as train, dev and test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from simcse_kit.data.bad_rows import ReadReport
from simcse_kit.data.files import suffix_of
from simcse_kit.data.prepare.normalize import letters_key
from simcse_kit.data.prepare.output import Summary, check_output, writing
from simcse_kit.data.read_options import DEFAULTS, ReadOptions
from simcse_kit.data.records import Records, reading_progress
from simcse_kit.data.remote import local_file
from simcse_kit.errors import ConfigError, DataError

__all__ = ["PARTS", "Keys", "assign", "components", "key_of", "parse_parts", "rows_of", "split"]

KEY_BYTES = 16
PARTS = ("train", "dev", "test")


def key_of(text: str) -> bytes:
    """Return 16 bytes that are equal for texts with the same letters and digits."""
    return blake2b(letters_key(text).encode(), digest_size=KEY_BYTES).digest()


class Keys:
    """Keys of the texts of many rows, in 20 bytes per text."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._counts: list[int] = []
        self._parts: list[NDArray[np.int32]] = []

    def add(self, texts: Iterable[str]) -> None:
        """Add the texts of the next row, one or more."""
        before = len(self._bytes)
        for text in texts:
            self._bytes += key_of(text)
        self._counts.append((len(self._bytes) - before) // KEY_BYTES)
        if len(self._counts) >= 1 << 16:
            self._pack()

    def _pack(self) -> None:
        self._parts.append(np.asarray(self._counts, dtype=np.int32))
        self._counts = []

    @property
    def counts(self) -> NDArray[np.int32]:
        """Number of texts in each row, (N,)."""
        self._pack()
        self._parts = [np.concatenate(self._parts)]
        return self._parts[0]

    @property
    def digests(self) -> NDArray[np.uint64]:
        """Keys (M, 2) of all texts, row after row, as two numbers that sort like the bytes."""
        pairs: NDArray[np.uint64] = np.frombuffer(self._bytes, dtype=">u8").reshape(-1, 2)
        return pairs


def components(keys: NDArray[np.uint64], rows: NDArray[np.int32], count: int) -> NDArray[np.int32]:
    """Find the groups of rows that share a key, directly or through other rows.

    Args:
        keys: (M,) keys, equal for texts that count as equal.
        rows: (M,) row of each key, ascending.
        count: Number of rows N.

    Returns:
        (N,) first row of the group of each row.
    """
    groups = np.arange(count, dtype=np.int32)
    ordered = np.sort(keys)
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    del ordered
    if not len(repeated):
        return groups
    # Most rows of most files share nothing, so the graph holds only the others.
    repeated = np.unique(repeated)
    codes = np.searchsorted(repeated, keys).clip(max=len(repeated) - 1)
    shared = np.flatnonzero(repeated[codes] == keys)
    tied, inside = np.unique(rows[shared], return_inverse=True)
    nodes = len(tied) + len(repeated)
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array(
        (np.ones(len(shared), dtype=np.int8), (inside, len(tied) + codes[shared])),
        shape=(nodes, nodes),
    )
    _, labels = connected_components(graph.tocsr(), directed=False)
    _, first, number = np.unique(labels[: len(tied)], return_index=True, return_inverse=True)
    groups[tied] = tied[first[number]]
    return groups


def rows_of(counts: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the row of each of M texts, from the number of texts in each row."""
    return np.repeat(np.arange(len(counts), dtype=np.int32), counts)


def parse_parts(text: str) -> tuple[float, float]:
    """Parse the sizes of dev and test: two counts (``1000,1000``) or two shares (``0.1,0.1``).

    Raises:
        ConfigError: The text is neither, or nothing is left for the train part.

    Examples:
        >>> parse_parts("1000,500")
        (1000, 500)
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
    """Assign each group to a part: 0 train, 1 dev, 2 test.

    The order of the groups is drawn by the seed and does not depend on the order of the file. Each
    group goes to test if it still fits there, else to dev, else to train.

    Args:
        groups: Number of rows by key.
        wanted: Largest number of rows in dev and in test.
        seed: Seed of the order.
    """
    salt = str(seed).encode()
    order = sorted(groups, key=lambda key: blake2b(key, digest_size=16, key=salt[:64]).digest())
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
    options: ReadOptions = DEFAULTS,
    *,
    dev_test: str = "0.1,0.1",
    by: Literal["anchor", "texts"] = "anchor",
    seed: int = 0,
    overwrite: bool = False,
) -> Summary:
    """Write ``train``, ``dev`` and ``test`` files into a folder, each in the order of the input.

    Rows whose anchors have the same letters and digits stay together, so a part may be a few rows
    smaller than requested. Near duplicates may go to different parts, unless
    :func:`~simcse_kit.data.prepare.dedupe.dedupe` with level ``near`` has removed them. The file is
    read twice; memory holds about 100 bytes per row.

    Args:
        file: A file of any format that training reads; all its columns are kept.
        output: The folder, made if needed.
        options: Options of reading, such as the text columns.
        dev_test: Sizes of dev and test, see :func:`parse_parts`.
        by: Whether rows stay together that share an ``anchor``, or that share any of their
            ``texts``, directly or through other rows.
        seed: Seed of the assignment.
        overwrite: Whether existing parts may be replaced.

    Raises:
        DataError: The file cannot be read, or a part would be empty.
        ConfigError: An argument is not allowed.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "in.txt")
        ...     _ = path.write_text("".join(f"sentence {n}\\n" for n in range(100)))
        ...     summary = split(path, Path(folder, "parts"), dev_test="10,20")
        ...     len(Path(folder, "parts", "test.txt").read_text().splitlines())
        20
    """
    if by not in ("anchor", "texts"):
        raise ConfigError(f"by is {by!r}; allowed: anchor, texts")
    sizes = parse_parts(dev_test)
    file, folder = local_file(file), Path(output)
    report = ReadReport()
    first = Records(file, options, report=report)
    targets = _targets(folder, _suffix(first), sizes, overwrite)
    columns = first.text_columns()
    keys, rows = _groups(first, columns, by)
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
                f"the same {by}, --dev-test {dev_test}; choose other sizes",
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
        on_bytes = stack.enter_context(reading_progress([file]))
        second = Records(file, options, on_bytes=on_bytes)
        at = 0
        for _, record, _ in second.with_texts(columns):
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
    """Choose the file of each requested part."""
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
    records: Records, columns: tuple[str, ...], by: str
) -> tuple[list[bytes], NDArray[np.int64]]:
    """Return the keys of the groups, and the group number of each good row."""
    keys = Keys()
    for _, _, texts in records.with_texts(columns):
        keys.add(texts[:1] if by == "anchor" else filter(None, texts))
    counts, digests = keys.counts, keys.digests
    owners = rows_of(counts)
    _, numbers = np.unique(components(digests[:, 0], owners, len(counts)), return_inverse=True)
    # The smallest key of a group identifies it, in any order of the file.
    group = numbers[owners]
    order = np.lexsort((digests[:, 1], digests[:, 0], group))
    first = order[np.searchsorted(group[order], np.arange(numbers.max(initial=-1) + 1))]
    return [key.tobytes() for key in digests[first]], numbers


def _suffix(records: Records) -> str:
    """Choose the suffix of the parts: .jsonl for .json and .parquet, and never .bz2 or .xz."""
    if records.format in ("json", "parquet"):
        return ".jsonl"
    plain = f".{records.format}"
    return f"{plain}.gz" if suffix_of(records.path) == f"{plain}.gz" else plain
