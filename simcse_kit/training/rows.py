"""The rows of a corpus that training sees, and those kept back for the dev loss."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace

from simcse_kit.text.corpus import Corpus
from simcse_kit.text.readers import Example

__all__ = ["RowSubset", "split_rows"]


class RowSubset:
    """A corpus without some of its rows; holds no list of the rows that stay.

    Indices are those of :class:`~simcse_kit.training.order.ShuffledOrder`: with N rows, index
    n + N·epoch is row n, read for that epoch.

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
    """Keep ``held_out`` random rows back, at most a tenth of the corpus.

    Returns:
        The rows to train on, and the rows kept back.
    """
    count = min(held_out, len(corpus) // 10)
    rows = sorted(random.Random(seed).sample(range(len(corpus)), count))
    return RowSubset(corpus, rows), corpus.rows(rows) if rows else []
