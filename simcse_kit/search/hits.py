"""The documents that a search finds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcse_kit.search.state import State

__all__ = ["Hit", "hits_of"]


@dataclass(frozen=True, slots=True)
class Hit:
    """A document that a search has found.

    Attributes:
        id: Id of the document.
        text: The text.
        cosine: Cosine similarity to the query, -1 to 1.
        metadata: Further values of the document.
        score: Score of hybrid search, by which its results are ordered; None without it.
    """

    id: str
    text: str
    cosine: float
    metadata: Mapping[str, Any] = field(default_factory=dict)
    score: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the values for JSON; ``score`` only if there is one."""
        values = {"id": self.id, "text": self.text, "cosine": self.cosine}
        values["metadata"] = dict(self.metadata)
        return values if self.score is None else values | {"score": self.score}


def hits_of(
    state: State,
    cosines: NDArray[np.float32],
    rows: NDArray[np.int64],
    lowest: float,
    scores: Sequence[float] | None = None,
) -> Iterator[Hit]:
    """Yield the documents of one query.

    Args:
        state: State of the index.
        cosines: ``(k,)`` cosines.
        rows: ``(k,)`` row numbers; -1 for none.
        lowest: Lowest cosine.
        scores: ``k`` scores of hybrid search; None without it.
    """
    every = [None] * len(rows) if scores is None else scores
    for cosine, row, score in zip(cosines.tolist(), rows.tolist(), every, strict=True):
        if row >= 0 and cosine >= lowest:
            name, text, metadata = state.texts.get(row)
            # Rounding can make a cosine slightly larger than 1.
            yield Hit(name, text, max(-1.0, min(1.0, cosine)), metadata, score)
