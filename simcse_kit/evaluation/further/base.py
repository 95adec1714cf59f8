"""What every task beside STS has in common: sentences to encode, and a score from their vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from simcse_kit.errors import MissingExtraError
from simcse_kit.evaluation.embed import Embeddings
from simcse_kit.evaluation.results import TaskScore

__all__ = ["FurtherTask", "require_sklearn", "unit_rows"]


class FurtherTask(Protocol):
    """A loaded and verified task."""

    @property
    def name(self) -> str:
        """What the task goes by in a report."""
        ...

    def sentences(self) -> Sequence[str]:
        """All that has to be encoded, in any order; repeats are encoded once."""
        ...

    def score(self, vectors: Embeddings, *, progress: bool = False) -> TaskScore:
        """Score the vectors of :meth:`sentences`."""
        ...


def require_sklearn(feature: str) -> Any:
    """Import scikit-learn, or raise MissingExtraError that names ``feature``."""
    try:
        import sklearn
    except ImportError:
        raise MissingExtraError(feature, "tasks") from None
    return sklearn


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """(n, d) float64 rows of length 1; scaled by the largest entry first, against overflow."""
    rows = np.asarray(vectors, dtype=np.float64)
    rows = rows / np.abs(rows).max(axis=1, keepdims=True)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))
