"""What every task beside STS has in common: sentences to encode, and a score from their vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from simcse_kit.errors import MissingExtraError
from simcse_kit.evaluation.embed import Embeddings
from simcse_kit.evaluation.results import TaskScore

__all__ = ["BeyondTask", "require_sklearn"]


class BeyondTask(Protocol):
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
