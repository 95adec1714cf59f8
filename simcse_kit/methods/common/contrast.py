"""What a method learns from, and what it compares each anchor with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simcse_kit.data.readers import Kind

__all__ = ["Contrast", "DataSpec"]


@dataclass(frozen=True)
class DataSpec:
    """The form of the training data.

    Attributes:
        kind: the kind of the rows.
        negatives: the largest number of hard negatives in a row of triplets, or of next sentences
            in a row of documents; 0 for other kinds.

    Examples:
        >>> DataSpec("triplets", 2).hard_negatives
        2
        >>> DataSpec("triplets", 2).columns
        (0, 1, 2, 3)
        >>> DataSpec("texts").columns
        (0,)
    """

    kind: Kind
    negatives: int = 0

    @property
    def hard_negatives(self) -> int:
        """Hard negatives in a row; 0 unless the rows are triplets."""
        return max(self.negatives, 1) if self.kind == "triplets" else 0

    @property
    def columns(self) -> tuple[int, ...]:
        """Numbers of the texts in a row: anchor, positive, then hard negatives."""
        more = 1 + max(self.negatives, 1)
        counts = {"texts": 1, "pairs": 2, "labelled": 2, "triplets": 1 + more}
        return tuple(range(counts.get(self.kind, more)))


@dataclass(frozen=True)
class Contrast:
    """The texts that a method compares an anchor with.

    Attributes:
        in_batch: negatives of an anchor within one batch. Gradient accumulation adds none.
        queue: the largest number of vectors from earlier batches; 0 without a queue.
        needed: whether a method learns by pushing negatives away; if not, ``in_batch`` is 0.

    Examples:
        >>> str(Contrast(63, queue=160))
        '63 negatives per anchor, up to 160 from the queue'
        >>> round(Contrast(63).reference_loss, 4)
        4.1589
    """

    in_batch: int
    queue: int = 0
    needed: bool = True

    @property
    def reference_loss(self) -> float | None:
        """The loss if all vectors are equal: ln of the candidates, positive included.

        A loss that stays at this value has learned nothing. None for methods without negatives. A
        method whose number of candidates changes, such as one with a queue, logs ``ln_batch``.
        """
        return math.log(1 + self.in_batch) if self.needed else None

    def __str__(self) -> str:
        if not self.needed:
            return "no negatives"
        queue = f", up to {self.queue} from the queue" if self.queue else ""
        return f"{self.in_batch} negatives per anchor{queue}"
