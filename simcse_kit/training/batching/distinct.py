"""Batches in which no anchor or positive occurs twice."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from simcse_kit.data.readers import Example
from simcse_kit.errors import DataError
from simcse_kit.training.batching.order import EpochOrder

__all__ = ["DistinctBatches"]

ReadRows = Callable[[Sequence[int]], Sequence[Example]]
"""Function from indices of an order to the rows."""

# Most rows of a source that wait for a batch without their texts; further ones are left out.
_MOST_WAITING = 100_000


class DistinctBatches(EpochOrder):
    """Order whose batches contain no text twice as anchor or positive.

    A row that shares a text with its batch waits for a later batch of the epoch, as in
    ``NoDuplicatesBatchSampler`` of sentence-transformers:
    https://github.com/huggingface/sentence-transformers/blob/d76ae77ea9bafd5612f0afc782615de6f2922d59/sentence_transformers/sampler.py
    There an epoch ends when the rest cannot fill a batch. Here every epoch has the same number of
    batches: rows of the next epoch take the places of those that still wait. Texts are compared
    exactly; hard negatives are not compared.

    Args:
        order: the order of the rows.
        read: function from indices to rows.
        batch_size: rows of a batch.
        texts: number of texts of a row that may not occur twice; None: all.

    Raises:
        DataError: a source has too few rows without common texts to fill a batch.

    Examples:
        >>> from simcse_kit.training.batching.order import ShuffledOrder
        >>> texts = ["cat", "cat", "dog", "dog"]
        >>> def read(indices):
        ...     return [Example((texts[index % 4],)) for index in indices]
        >>> order = DistinctBatches(ShuffledOrder(4, seed=0), read, batch_size=2)
        >>> first, second, third, fourth = [example.texts[0] for example in read(list(order))]
        >>> first != second, third != fourth
        (True, True)
    """

    def __init__(
        self, order: EpochOrder, read: ReadRows, *, batch_size: int, texts: int | None = 2
    ):
        super().__init__(order.rows)
        self._order = order
        self._read = read
        self._batch_size = batch_size
        self._texts = texts
        self._spare = [self._any_batch(source) for source in range(len(order.source_rows))]

    def __len__(self) -> int:
        return len(self._order) // self._batch_size * self._batch_size

    def visits(self, epoch: int) -> Iterator[int]:
        """Yield the indices of an epoch."""
        streams = [self._stream(source, epoch) for source in range(len(self._spare))]
        turns = self._order.sources_of_batches(epoch)
        for source in islice(turns, len(self) // self._batch_size):
            yield from streams[source].batch() or self._spare[source]

    def _stream(self, source: int, epoch: int) -> _Stream:
        rows = self._with_texts(self._order.stream(source, epoch))
        return _Stream(rows, self._batch_size, self._order.source_rows[source])

    def _with_texts(self, indices: Iterator[int]) -> Iterator[tuple[int, frozenset[str]]]:
        while piece := list(islice(indices, self._batch_size)):
            for index, row in zip(piece, self._read(piece), strict=True):
                yield index, frozenset(row.texts[: self._texts])

    def _any_batch(self, source: int) -> list[int]:
        """Return one batch of a source, which takes the place of any that cannot be filled."""
        stream = self._stream(source, 0)
        batch = stream.batch()
        if batch:
            return batch
        count = stream.most
        raise DataError(
            f"data.no_duplicates = true: a batch has {self._batch_size} rows, but only {count} "
            f"rows without a common anchor or positive were found{self._where(source)}; use "
            f"--batch-size {count} or less, or leave data.no_duplicates out"
        )

    def _where(self, source: int) -> str:
        return f" in entry {source + 1} of data.train" if len(self._order.source_rows) > 1 else ""


class _Stream:
    """Rows of one source, and those that wait.

    Args:
        rows: indices and texts of the rows, without end.
        batch_size: rows of a batch.
        limit: number of rows after which a batch is given up.
    """

    def __init__(self, rows: Iterator[tuple[int, frozenset[str]]], batch_size: int, limit: int):
        self._rows = rows
        self._batch_size = batch_size
        self._limit = limit
        # Text -> rows that wait for a batch without it. All rows of a queue have the text, so that
        # a batch takes at most the first one.
        self._waiting: dict[str, deque[tuple[int, frozenset[str]]]] = {}
        self._count = 0
        self.most = 0

    def batch(self) -> list[int]:
        """Return the indices of the next batch; an empty list if it could not be filled."""
        found: list[int] = []
        used: set[str] = set()
        for text in list(self._waiting):
            if len(found) < self._batch_size and used.isdisjoint(self._waiting[text][0][1]):
                index, texts = self._taken(text)
                found.append(index)
                used |= texts
        for _ in range(self._limit):
            if len(found) == self._batch_size:
                return found
            index, texts = next(self._rows)
            if used.isdisjoint(texts):
                found.append(index)
                used |= texts
            elif self._count < _MOST_WAITING:
                self._count += 1
                common = min(used & texts)  # independent of the order of a set
                self._waiting.setdefault(common, deque()).append((index, texts))
        self.most = len(found)
        return found if len(found) == self._batch_size else []

    def _taken(self, text: str) -> tuple[int, frozenset[str]]:
        """Take the first row that waits because of a text."""
        self._count -= 1
        queue = self._waiting[text]
        row = queue.popleft()
        if not queue:
            del self._waiting[text]
        return row
