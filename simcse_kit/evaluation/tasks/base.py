"""The protocol of tasks other than STS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

from simcse_kit.errors import MissingExtraError
from simcse_kit.evaluation.embed import Embeddings
from simcse_kit.evaluation.pair_set import PairSet
from simcse_kit.evaluation.results import TaskScore

__all__ = ["LoadedTask", "Task", "require_sklearn"]


class Task(Protocol):
    """A task whose data has been loaded and verified.

    A task may also have a method ``roles()`` that returns its queries and documents by the names
    ``"query"`` and ``"document"``: encoders with prompts for them then encode them apart, and
    ``vectors.of("query")`` has the vectors of the queries.
    """

    @property
    def name(self) -> str:
        """Name of the task in reports."""
        ...

    def sentences(self) -> Sequence[str]:
        """List the sentences to encode, in any order; repeated ones are encoded once."""
        ...

    def score(self, vectors: Embeddings, *, progress: bool = False) -> TaskScore:
        """Score an encoder.

        Args:
            vectors: function from n of the :meth:`sentences` to their (n, d) float32 vectors.
            progress: show a progress bar.
        """
        ...


LoadedTask: TypeAlias = list[PairSet] | Task
"""The subsets of an STS task, or another task."""


def require_sklearn(feature: str) -> Any:
    """Import scikit-learn, or raise MissingExtraError that names ``feature``."""
    try:
        import sklearn
    except ImportError:
        raise MissingExtraError(feature, "tasks") from None
    return sklearn
