"""The documents that a search finds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    """

    id: str
    text: str
    cosine: float
    metadata: Mapping[str, Any] = field(default_factory=dict)


def hits_of(
    state: State, scores: NDArray[np.float32], rows: NDArray[np.int64], lowest: float
) -> Iterator[Hit]:
    """Yield the documents of one query.

    Args:
        state: State of the index.
        scores: ``(k,)`` cosines.
        rows: ``(k,)`` row numbers; -1 for none.
        lowest: Lowest cosine.
    """
    for score, row in zip(scores.tolist(), rows.tolist(), strict=True):
        if row >= 0 and score >= lowest:
            name, text, metadata = state.texts.get(row)
            # Rounding can make a cosine slightly larger than 1.
            yield Hit(name, text, max(-1.0, min(1.0, score)), metadata)
