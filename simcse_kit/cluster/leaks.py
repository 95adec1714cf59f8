"""Search of training rows for evaluation sentences on a cluster, with the local results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path

from simcse_kit.cluster.connection import connected
from simcse_kit.cluster.dedupe import Bounds, row_blocks
from simcse_kit.cluster.tasks import failures, in_order, task
from simcse_kit.data.read_options import DEFAULTS, ReadOptions
from simcse_kit.evaluation.contamination.check import (
    LeakFiles,
    LeakReport,
    Row,
    search_files,
)
from simcse_kit.evaluation.contamination.index import Hit, LeakIndex
from simcse_kit.evaluation.pair_set import PairSet

__all__ = ["check_leaks_on_ray"]

# The rows that wait for their results are held by the process that writes them.
_BOUNDS = Bounds(block_rows=10_000, block_characters=5_000_000)


def check_leaks_on_ray(
    files: Sequence[str | Path],
    sets: Mapping[str, Sequence[PairSet]],
    options: ReadOptions = DEFAULTS,
    written: LeakFiles | None = None,
    *,
    threshold: float | None = 0.8,
    engine: str = "ray",
) -> LeakReport:
    """Search training files for evaluation sentences, as the local ``check_leaks``.

    Every worker has a copy of the index of the evaluation sentences. One process reads the files
    and writes the results, in order.

    Args:
        files: Files of any format that training reads.
        sets: Graded pairs by evaluation set.
        options: Options of reading.
        written: Files to write; None writes none.
        threshold: Smallest similarity of near matches; None to search only for equal texts.
        engine: ``ray`` for a cluster on this machine, which ends afterwards, or ``ray:ADDRESS``.

    Raises:
        ConfigError: An argument is not allowed, or no cluster answers.
        DataError: A file cannot be read.
        MissingExtraError: Ray is not installed.
        SimcseError: The cluster failed.
    """

    def search(index: LeakIndex, rows: Iterable[Row]) -> Iterator[tuple[Row, list[list[Hit]]]]:
        with connected(engine), failures("search for leaks"):
            yield from _search(index, rows)

    return search_files(
        files, sets, options, written or LeakFiles(), threshold=threshold, search=search
    )


def _search(index: LeakIndex, rows: Iterable[Row]) -> Iterator[tuple[Row, list[list[Hit]]]]:
    ray = import_module("ray")
    shared = ray.put(index)
    finding = task(_hits)
    blocks = row_blocks(rows, lambda row: sum(map(len, row[2])), _BOUNDS)

    started = (
        (block, finding.remote(shared, [texts for _, _, texts in block])) for _, block in blocks
    )
    for block, reference in in_order(started):
        found = ray.get(reference)
        for place, row in enumerate(block):
            yield row, found.get(place) or [[] for _ in row[2]]


def _hits(index: LeakIndex, rows: Sequence[Sequence[str]]) -> dict[int, list[list[Hit]]]:
    """Return the hits of the texts of rows, by the place of each row that has any."""
    found = ((place, [index.find(text) for text in texts]) for place, texts in enumerate(rows))
    return {place: hits for place, hits in found if any(hits)}
