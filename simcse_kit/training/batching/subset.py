"""The rows that training sees, and those kept back for the dev loss."""

from __future__ import annotations

import logging
import random
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from simcse_kit.data.corpus import Corpus
from simcse_kit.data.prepare.connected_rows import Keys, components, rows_of
from simcse_kit.data.readers import Example, Kind
from simcse_kit.utils.progress import progress_bar

__all__ = ["RowSubset", "drawn_one_by_one", "rows_digest", "split_rows"]

logger = logging.getLogger(__name__)

# Of the rows, the least share in groups that are small enough to be held out: else those that can
# be are no fair sample.
_FAIR = 0.5
# Draws for each row that is wanted.
_DRAWS = 20
# What held-out rows share with no row of training -> how many texts of a row that is; None: all.
# From the strictest on, the first that leaves a fair sample is taken.
_LEVELS: dict[Kind, dict[str, int | None]] = {
    "texts": {"text": None},
    "pairs": {"text": None, "anchor": 1},
    "labelled": {"text": None, "first text": 1},
    "triplets": {"text": None, "anchor or positive": 2, "anchor": 1},
    "documents": {"sentence": None, "document": 0},
}


class RowSubset:
    """A corpus without some of its rows; holds no list of the rows that stay.

    Indices are those of
    :class:`~simcse_kit.training.batching.order.ShuffledOrder`: with N rows, index n + N·epoch is
    row n, read for that epoch.

    Args:
        corpus: the whole.
        without: row numbers to leave out, ascending.
    """

    def __init__(self, corpus: Corpus, without: Sequence[int] = ()):
        self._corpus = corpus
        # The n-th row that stays is at n + k, where k rows before it are left out.
        self._thresholds = [row - rank for rank, row in enumerate(without)]

    def __len__(self) -> int:
        return len(self._corpus) - len(self._thresholds)

    def _position(self, index: int) -> int:
        return index + bisect_right(self._thresholds, index)

    def __getitem__(self, index: int) -> Example:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Example]:
        """Many rows at once; torch's loader asks for a batch this way."""
        visits = [divmod(index, len(self)) for index in indices]
        rows = self._corpus.rows([self._position(index) for _, index in visits])
        return [
            replace(row, epoch=epoch) if epoch else row
            for (epoch, _), row in zip(visits, rows, strict=True)
        ]


def split_rows(corpus: Corpus, held_out: int, seed: int) -> tuple[RowSubset, list[Example]]:
    """Keep about ``held_out`` random rows back, at most a tenth of the corpus.

    Rows that share a text stay together, also where they do so through other rows; texts that
    differ in case, punctuation and spacing only count as one. Where that ties most of the rows
    together, held-out rows share no anchor (of documents: no document) with those of training, and
    the log says so.

    Returns:
        The rows to train on, and the rows kept back.
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
    """The rows that were kept back before rows with equal texts stayed together."""
    return sorted(random.Random(seed).sample(range(size), min(held_out, size // 10)))


def rows_digest(rows: list[int]) -> str:
    """SHA-256 of row numbers, in hexadecimal digits."""
    return sha256(",".join(map(str, rows)).encode()).hexdigest()


def _groups_of(corpus: Corpus, most: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """(N,) the group of each row, and how many rows each group has; one of ``most`` rows is still
    small enough to be held out."""
    keys = Keys()
    with progress_bar(len(corpus), desc="held-out rows", unit=" rows", delay=2) as bar:
        for texts in corpus.texts():
            keys.add(texts)
            bar.update()
    counts, digests = keys.counts, keys.digests[:, 0].astype(np.uint64)
    del keys  # they are large
    levels = list(_LEVELS[corpus.kind].items())
    for level in levels:
        groups = _grouped(digests, counts, level[1])
        sizes = np.bincount(groups)
        fair = float(sizes[sizes <= most].sum()) >= _FAIR * len(corpus)
        if fair or level == levels[-1]:
            break
    if not fair or level != levels[0]:
        logger.warning(
            "most rows are tied to each other by texts they share: the rows held out share no %s "
            "with rows of training%s, so that their loss is lower than on new text",
            level[0],
            "" if fair else ", come from the few that others do not repeat",
        )
    return groups, sizes


def _draws(size: int, count: int, seed: int) -> Iterator[int]:
    """Row numbers in a random order, the first of them as they were drawn one by one."""
    generator = random.Random(seed)
    yield from generator.sample(range(size), count)
    for _ in range(_DRAWS * count):
        yield generator.randrange(size)


def _grouped(
    digests: NDArray[np.uint64], counts: NDArray[np.int32], width: int | None
) -> NDArray[np.int32]:
    """The first row of each row's group: rows that share one of their first ``width`` texts.

    Of documents, 0 stands for the document: the next row begins with the second sentence of this.
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
