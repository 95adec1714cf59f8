"""Removal of duplicates on a cluster, with the result of the local engine.

Rows are read in order by one process and go to tasks in blocks. Digests of equal rows are brought
together by their remainder, and rows of a bucket of MinHash by band and remainder: each task
returns one object for each partition, and Ray moves the objects, spills them to disk, and computes
lost ones again. The number of partitions follows from the number of rows, so that the memory of a
task has a bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcse_kit.cluster.connection import connected
from simcse_kit.cluster.dedupe_tasks import (
    digest_block,
    duplicates_of,
    pairs_in,
    sign_block,
    similar,
)
from simcse_kit.cluster.duplicate_groups import PAIRS, REMOVED, distinct_pairs, parts_of, states
from simcse_kit.cluster.tasks import failures, in_order, task
from simcse_kit.data.prepare.dedupe import (
    EXACT,
    NORMAL,
    DuplicateRules,
    near_reason,
    remove_duplicates,
)
from simcse_kit.data.prepare.minhash import BandKeys
from simcse_kit.data.prepare.output import Summary
from simcse_kit.data.read_options import DEFAULTS, ReadOptions
from simcse_kit.utils.progress import progress_bar

__all__ = ["Bounds", "dedupe_on_ray", "row_blocks"]

# First rows of a bucket that are paired with the others, in the first and in each later round.
_FIRST = 4
_GROWTH = 4


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds on the data of one task; with the defaults a task takes less than 1 GB.

    Args:
        block_rows: Rows in a block.
        block_characters: Characters in a block, unless a row alone has more.
        digests: Average number of digests, of 40 bytes, in a partition.
        places: Average number of places in buckets, of 16 bytes, in a partition.
        texts: Characters of texts that are compared at a time, estimated from the average.
    """

    block_rows: int = 100_000
    block_characters: int = 30_000_000
    digests: int = 2_000_000
    places: int = 5_000_000
    texts: int = 50_000_000


BOUNDS = Bounds()
RULES = DuplicateRules()


def dedupe_on_ray(
    file: str | Path,
    output: str | Path,
    options: ReadOptions = DEFAULTS,
    rules: DuplicateRules = RULES,
    *,
    engine: str = "ray",
    bounds: Bounds = BOUNDS,
    overwrite: bool = False,
) -> Summary:
    """Write the rows of a file without duplicates, as :func:`~simcse_kit.data.prepare.dedupe`.

    Args:
        file: A file of any format that training reads.
        output: The file to write.
        options: Options of reading.
        rules: Rules for duplicates.
        engine: ``ray`` for a cluster on this machine, which ends afterwards, or ``ray:ADDRESS``.
        bounds: Bounds on the data of one task.
        overwrite: Whether an existing ``output`` may be replaced.

    Raises:
        ConfigError: An argument is not allowed, or no cluster answers.
        DataError: The file cannot be read, or its columns are not recognised.
        MissingExtraError: Ray is not installed.
        SimcseError: The cluster failed.
    """

    def mark(rows: Iterable[tuple[str, ...]], rules: DuplicateRules, summary: Summary) -> bytearray:
        with connected(engine), failures(str(file)):
            return _Marking(rules, bounds, summary).marks(rows)

    return remove_duplicates(file, output, options, rules, mark=mark, overwrite=overwrite)


def row_blocks(
    rows: Iterable[Any], size: Callable[[Any], int], bounds: Bounds = BOUNDS
) -> Iterator[tuple[int, list[Any]]]:
    """Cut rows into blocks of bounded size, each with the number of its first row.

    Examples:
        >>> list(row_blocks(["a", "b", "c"], len, Bounds(block_rows=2)))
        [(0, ['a', 'b']), (2, ['c'])]
    """
    block: list[Any] = []
    first = held = 0
    for row in rows:
        block.append(row)
        held += size(row)
        if len(block) == bounds.block_rows or held >= bounds.block_characters:
            yield first, block
            first, held, block = first + len(block), 0, []
    if block:
        yield first, block


@dataclass
class _Block:
    """The rows of a block: references to their digests and to their normal keys."""

    first: int
    rows: int
    digests: Any
    keys: Any


class _Marking:
    """Marking of the rows to keep, by tasks on the connected cluster."""

    def __init__(self, rules: DuplicateRules, bounds: Bounds, summary: Summary):
        self._ray = import_module("ray")
        self._rules = rules
        self._bounds = bounds
        self._summary = summary
        self._cpus = max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def marks(self, rows: Iterable[tuple[str, ...]]) -> bytearray:
        """Return 1 for each row that is kept, and 0 for each other one."""
        blocks: list[_Block] = []
        repeated: list[NDArray[np.int64]] = []
        characters = 0
        digesting = task(digest_block, 3)
        starts = row_blocks(rows, lambda texts: sum(map(len, texts)), self._bounds)
        started = (
            ((first, len(block)), digesting.remote(first, block, self._rules.level))
            for first, block in starts
        )
        for (first, length), (digests, found, keys) in in_order(started):
            again, more = self._ray.get(found)
            repeated.append(again)
            characters += more
            blocks.append(_Block(first, length, digests, keys))
        if not blocks:
            return bytearray()
        count = blocks[-1].first + blocks[-1].rows
        with progress_bar(None, desc="comparing", unit=" tasks", delay=2) as bar:
            kept = self._without_equal(blocks, repeated, count, bar)
            if self._rules.level == "near":
                self._remove_near(blocks, kept, characters / count, bar)
        return bytearray(kept.tobytes())

    def _without_equal(
        self, blocks: Sequence[_Block], repeated: list[NDArray[np.int64]], count: int, bar: Any
    ) -> NDArray[np.bool_]:
        parts = self._partitions(count, self._bounds.digests)
        pieces = self._spread([block.digests for block in blocks], "normal", parts)
        for block in blocks:
            block.digests = None
        grouping = task(duplicates_of)
        found = self._results([grouping.remote(*part) for part in pieces], bar)
        exact = np.concatenate([*repeated, *(part[0] for part in found)])
        normal = np.concatenate([part[1] for part in found])
        found_rows = ((exact, EXACT), (normal, NORMAL))
        kept = np.ones(count, dtype=np.bool_)
        kept[exact] = kept[normal] = False
        # The reasons are listed in the order in which rows give them.
        reasons = sorted((rows.min(), what, rows) for rows, what in found_rows if len(rows))
        for _, what, rows in reasons:
            self._summary.leave_out(what, len(rows))
        return kept

    def _remove_near(
        self, blocks: Sequence[_Block], kept: NDArray[np.bool_], mean_length: float, bar: Any
    ) -> None:
        """Set the near duplicates of earlier rows that are kept to False."""
        threshold = self._rules.threshold
        places = int(kept.sum()) * BandKeys(threshold).bands
        parts = self._partitions(places, self._bounds.places)
        signing = task(sign_block, parts)
        signed = [
            signing.remote(
                block.keys,
                block.first,
                kept[block.first : block.first + block.rows],
                threshold,
                parts,
            )
            for block in blocks
        ]
        pieces = list(zip(*signed, strict=True))
        del signed
        texts = [(block.first, block.rows, block.keys) for block in blocks]
        most = max(1, int(self._bounds.texts / (2 * mean_length + 200)))
        near = np.empty(0, dtype=PAIRS)
        known: Any = None
        state = bytearray(b"\1") * len(kept)
        first = _FIRST
        while pieces:
            pairing = task(pairs_in, 3)
            found = [pairing.remote(first, known, *piece) for piece in pieces]
            del pieces
            counts = self._results([counts for _, _, counts in found], bar)
            total = sum(pairs for pairs, _, _ in counts)
            blocked = np.unique(np.concatenate([rows for _, rows, _ in counts]))
            comparing = task(similar)
            apart = self._spread(
                [pairs for pairs, _, _ in found],
                "row",
                self._partitions(total, self._bounds.places),
            )
            compared = [comparing.remote(texts, threshold, most, *part) for part in apart]
            near = distinct_pairs(np.concatenate([near, *self._results(compared, bar)]))
            state = states(len(kept), near.tolist(), blocked)
            known = self._ray.put(state)
            pieces = [
                (rest,) for (_, rest, _), (_, _, left) in zip(found, counts, strict=True) if left
            ]
            first *= _GROWTH
        removed = kept & (np.frombuffer(state, dtype=np.uint8) == REMOVED)
        kept[removed] = False
        if removed.any():
            self._summary.leave_out(near_reason(threshold), int(removed.sum()))

    def _partitions(self, records: int, each: int) -> int:
        """Return the number of partitions; all CPUs are used, and each partition is bounded."""
        # With one partition, Ray would return the only result of a task without a list.
        return max(2, self._cpus, -(-records // each))

    def _spread(self, records: Sequence[Any], field: str, parts: int) -> list[tuple[Any, ...]]:
        """Split the records of each reference, and give the pieces of each partition."""
        splitting = task(parts_of, parts)
        return list(zip(*(splitting.remote(each, field, parts) for each in records), strict=True))

    def _results(self, references: Sequence[Any], bar: Any) -> list[Any]:
        found = []
        for reference in references:
            found.append(self._ray.get(reference))
            bar.update()
        return found
