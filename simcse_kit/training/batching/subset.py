"""Split of a corpus into rows to train on and held-out rows for the dev loss."""

from __future__ import annotations

import logging
import random
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from simcse_kit.data.corpus import Corpus
from simcse_kit.data.prepare.split import Keys, components, rows_of
from simcse_kit.data.readers import Example, Kind
from simcse_kit.utils.progress import progress_bar

__all__ = ["RowSubset", "drawn_one_by_one", "rows_digest", "split_rows"]

logger = logging.getLogger(__name__)

# Least share of the rows in groups that are small enough to be held out; with less, the rows that
# can be held out are not a fair sample.
_FAIR = 0.5
# Most draws for each row to hold out.
_DRAWS = 20
# What held-out rows do not share with training rows -> number of texts of a row; None: all.
# The first level that leaves a fair sample is used; the strictest comes first.
_LEVELS: dict[Kind, dict[str, int | None]] = {
    "texts": {"text": None},
    "pairs": {"text": None, "anchor": 1},
    "labelled": {"text": None, "first text": 1},
    "triplets": {"text": None, "anchor or positive": 2, "anchor": 1},
    "documents": {"sentence": None, "document": 0},
}


class RowSubset:
    """A corpus without some of its rows, in memory proportional to the rows left out.

    Indices are those of
    :class:`~simcse_kit.training.batching.order.EpochOrder`: with N rows, index n + N·epoch is
    row n, read for that epoch.

    Args:
        corpus: the whole corpus.
        without: row numbers to leave out, ascending.
    """

    def __init__(self, corpus: Corpus, without: Sequence[int] = ()):
        self._corpus = corpus
        # The n-th remaining row is at n + k if k rows before it are left out.
        self._thresholds = [row - rank for rank, row in enumerate(without)]

    def __len__(self) -> int:
        return len(self._corpus) - len(self._thresholds)

    def _position(self, index: int) -> int:
        return index + bisect_right(self._thresholds, index)

    def count_before(self, row: int) -> int:
        """Count the remaining rows whose number in the corpus is less than ``row``."""
        ranks = range(len(self._thresholds))
        return row - bisect_left(ranks, row, key=lambda rank: self._thresholds[rank] + rank)

    def __getitem__(self, index: int) -> Example:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Example]:
        """Read many rows at once; the data loader of torch reads a batch this way."""
        visits = [divmod(index, len(self)) for index in indices]
        rows = self._corpus.rows([self._position(index) for _, index in visits])
        return [
            replace(row, epoch=epoch) if epoch else row
            for (epoch, _), row in zip(visits, rows, strict=True)
        ]


def split_rows(corpus: Corpus, held_out: int, seed: int) -> tuple[RowSubset, list[Example]]:
    """Hold out about ``held_out`` random rows, at most a tenth of the corpus.

    Rows that share a text, directly or through other rows, stay together; texts that differ only in
    case, punctuation and spacing count as one. If that connects most of the rows, held-out rows
    only share no anchor (for documents: no document) with training rows, and the log says so.

    Returns:
        The rows to train on, and the held-out rows.
    """
    count = min(held_out, len(corpus) // 10)
    if not count:
        return RowSubset(corpus), []
    groups, sizes = _groups_of(corpus, count)
    chosen = np.zeros(len(sizes), dtype=bool)
    room = count
    for row in _draws(len(corpus), count, seed):
        group = groups[row]
        if not chosen[group] and sizes[group] <= room:
            chosen[group] = True
            room -= int(sizes[group])
            if not room:
                break
    rows = np.flatnonzero(chosen[groups]).tolist()
    return RowSubset(corpus, rows), corpus.rows(rows) if rows else []


def drawn_one_by_one(size: int, held_out: int, seed: int) -> list[int]:
    """Return the rows that earlier versions held out, which did not keep equal texts together."""
    return sorted(random.Random(seed).sample(range(size), min(held_out, size // 10)))


def rows_digest(rows: list[int]) -> str:
    """Compute the SHA-256 of row numbers, in hexadecimal digits."""
    return sha256(",".join(map(str, rows)).encode()).hexdigest()


def _groups_of(corpus: Corpus, most: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the group of each row, (N,), and the size of each group.

    A group of at most ``most`` rows can be held out.
    """
    keys = Keys()
    with progress_bar(len(corpus), desc="held-out rows", unit=" rows", delay=2) as bar:
        for texts in corpus.texts():
            keys.add(texts)
            bar.update()
    counts, digests = keys.counts, keys.digests[:, 0].astype(np.uint64)
    del keys  # to free memory
    levels = list(_LEVELS[corpus.kind].items())
    for level in levels:
        groups = _grouped(digests, counts, level[1])
        sizes = np.bincount(groups)
        fair = float(sizes[sizes <= most].sum()) >= _FAIR * len(corpus)
        if fair or level == levels[-1]:
            break
    if not fair or level != levels[0]:
        logger.warning(
            "most rows are connected by texts that they share: the held-out rows share no %s with "
            "training rows%s, so their loss is lower than on new text",
            level[0],
            "" if fair else " and come from the few rows without repetitions",
        )
    return groups, sizes


def _draws(size: int, count: int, seed: int) -> Iterator[int]:
    """Yield row numbers in a random order; the first ones are those of earlier versions."""
    generator = random.Random(seed)
    yield from generator.sample(range(size), count)
    for _ in range(_DRAWS * count):
        yield generator.randrange(size)


def _grouped(
    digests: NDArray[np.uint64], counts: NDArray[np.int32], width: int | None
) -> NDArray[np.int32]:
    """Return the first row of each row's group: rows that share one of the first ``width`` texts.

    For documents, 0 means the document: a row begins with the second sentence of the row before.
    """
    owners = rows_of(counts)
    if width is None:
        return components(digests, owners, len(counts))
    firsts = np.cumsum(counts) - counts
    if width == 0:
        goes_on = digests[firsts[1:]] == digests[firsts[:-1] + 1]
        begins = np.concatenate([[0], np.flatnonzero(~goes_on) + 1]).astype(np.int32)
        return np.repeat(begins, np.diff([*begins, len(counts)]))
    kept = np.arange(len(digests)) - np.repeat(firsts, counts) < width
    return components(digests[kept], owners[kept], len(counts))
