"""Order of the rows of several files, drawn by weights and a rule."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain, count, islice
from typing import Literal, TypeAlias

from simcse_kit.errors import ConfigError
from simcse_kit.training.batching.order import EpochOrder, permutation_keys, permuted

__all__ = ["FilesOrder", "Rule"]

Rule: TypeAlias = Literal["proportional", "round_robin", "one_per_batch"]
"""How batches are drawn from several files.

``proportional`` mixes the files in each batch. With the others, each batch has rows of one file:
``round_robin`` takes the files in turn, ``one_per_batch`` in a random order.
"""

Place: TypeAlias = tuple[int, int]
"""A file, and the number of a unit among those that the file gives in an epoch."""


class FilesOrder(EpochOrder):
    """Order in which each file gives its share of an epoch.

    An epoch has as many batches as one pass over all rows. Every epoch takes equally many rows of a
    file and continues where the epoch before ended: a file of large weight is passed over several
    times in an epoch, one of small weight once in several epochs. Each pass over a file has an
    order of its own.

    Batches of one file follow the samplers for several data sets of sentence-transformers
    (``MultiDatasetBatchSamplers``), which end an epoch when a data set is exhausted.

    Args:
        files: consecutive ranges of row numbers, one for each file.
        weights: share of the rows of each file, or of its batches, up to a common factor.
        rule: how batches are drawn.
        batch_size: rows of a batch.
        seed: seed of the run.

    Raises:
        ConfigError: a file has fewer rows than a batch of one file needs, or its weight is so small
            that it gives no row of an epoch.

    Examples:
        >>> files = [range(4), range(4, 12)]
        >>> order = FilesOrder(files, [1, 1], "round_robin", batch_size=2, seed=0)
        >>> [index % 12 < 4 for index in order]
        [True, True, False, False, True, True, False, False, True, True, False, False]
    """

    def __init__(
        self,
        files: Sequence[range],
        weights: Sequence[float],
        rule: Rule,
        *,
        batch_size: int,
        seed: int,
    ):
        super().__init__(files[-1].stop)
        self._files = files
        self._rule = rule
        self._seed = seed
        self._batches = self.rows // batch_size
        # The smallest number of rows that come from one file.
        self._unit = 1 if rule == "proportional" else batch_size
        self._units = self._batches * batch_size // self._unit
        for number, file in enumerate(files, 1):
            if len(file) < self._unit:
                raise ConfigError(
                    f"entry {number} of data.train has {len(file)} rows to train on, and with "
                    f"data.sampling = {rule!r} a batch has {batch_size} rows of one file; use a "
                    "smaller --batch-size, give more rows, or use data.sampling = 'proportional'"
                )
        self._shares = _apportioned(self._units, weights)
        if 0 in self._shares:
            number = self._shares.index(0) + 1
            raise ConfigError(
                f"data.weights = {list(weights)} gives entry {number} of data.train no place in an "
                f"epoch of {self._batches} batches; give it a larger weight, or leave it out"
            )

    def __len__(self) -> int:
        return self._units * self._unit

    @property
    def passes(self) -> list[float]:
        """Passes over each file in an epoch."""
        return [
            share * self._unit / len(file)
            for share, file in zip(self._shares, self._files, strict=True)
        ]

    def visits(self, epoch: int) -> Iterator[int]:
        """Yield the indices of an epoch."""
        return chain.from_iterable(
            self._rows_of(file, epoch * self._shares[file] + number)
            for file, number in self._places(epoch)
        )

    @property
    def source_rows(self) -> Sequence[int]:
        """Number of rows of each source; a batch has rows of one source."""
        return [self.rows] if self._rule == "proportional" else list(map(len, self._files))

    def sources_of_batches(self, epoch: int) -> Iterator[int]:
        """Yield the source of each batch of an epoch, and possibly more."""
        if self._rule == "proportional":
            return super().sources_of_batches(epoch)
        return (file for file, _ in self._places(epoch))

    def stream(self, source: int, epoch: int) -> Iterator[int]:
        """Yield the indices of a source from the start of an epoch on, without end."""
        if self._rule == "proportional":
            return super().stream(source, epoch)
        units = count(epoch * self._shares[source])
        return chain.from_iterable(self._rows_of(source, unit) for unit in units)

    def _places(self, epoch: int) -> Iterator[Place]:
        """Yield the file of each unit of an epoch, and its number among the units of the file."""
        if self._rule == "round_robin":
            turns = ((f, number) for f, n in enumerate(self._shares) for number in range(n))
            return iter(sorted(turns, key=lambda turn: (turn[1] + 0.5) / self._shares[turn[0]]))
        return self._mixed(epoch)

    def _mixed(self, epoch: int) -> Iterator[Place]:
        starts = [0, *accumulate(self._shares)]
        keys = permutation_keys(self._seed, epoch)
        for index in range(self._units):
            place = permuted(index, self._units, keys)
            file = bisect_right(starts, place) - 1
            yield file, place - starts[file]

    def _rows_of(self, number: int, unit: int) -> Iterator[int]:
        """Yield the indices of the ``unit``-th unit of file ``number``, counted over all epochs."""
        file = self._files[number]
        # A pass has whole units, so that a batch of one file has no row twice.
        passed, place = divmod(unit, len(file) // self._unit)
        keys = permutation_keys(self._seed, number, passed)
        first = file.start + passed * self.rows
        for position in range(place * self._unit, (place + 1) * self._unit):
            yield first + permuted(position, len(file), keys)


def _apportioned(total: int, weights: Sequence[float]) -> list[int]:
    """Divide ``total`` by weights into whole numbers: those of the largest remainders go up."""
    exact = [total * weight / sum(weights) for weight in weights]
    shares = [int(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: shares[i] - exact[i])
    for index in islice(by_remainder, total - sum(shares)):
        shares[index] += 1
    return shares
