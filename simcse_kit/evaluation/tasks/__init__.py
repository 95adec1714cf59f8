"""Evaluation tasks, and the table of their kinds, to which packages can add their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from simcse_kit.errors import ConfigError
from simcse_kit.registry import Registry

if TYPE_CHECKING:
    from simcse_kit.evaluation.tasks.base import Task

__all__ = ["TASK_KINDS", "register_task"]

TASK_KINDS = Registry(
    "task",
    {
        "retrieval": "simcse_kit.evaluation.tasks.retrieval:load_retrieval",
        "paraphrase": "simcse_kit.evaluation.tasks.paraphrase:load_paraphrase",
        "clustering": "simcse_kit.evaluation.tasks.clustering:load_clustering",
    },
    group="simcse_kit.tasks",
)
"""Loaders of the tasks that are written as ``KIND:PATH``."""


def register_task(name: str, load: Callable[[str], Task]) -> None:
    """Add a task, so that :func:`~simcse_kit.evaluation.evaluate.evaluate` finds it by its name.

    An installed package can declare the loader as an entry point of the group ``simcse_kit.tasks``
    instead; `simcse eval` then finds the task too.

    Args:
        name: name of the task, written as ``NAME`` or ``NAME:PATH`` among the tasks.
        load: function from the text after the colon (empty without one) to a task, see
            :class:`~simcse_kit.evaluation.tasks.base.Task`. It raises a DataError if the data is
            wrong.

    Raises:
        ConfigError: the name is taken, or is not a plain name.

    Examples:
        >>> import numpy as np
        >>> from simcse_kit import evaluate
        >>> from simcse_kit.evaluation.results import TaskScore
        >>> class OddOneOut:
        ...     "Find the sentence that differs most from the others."
        ...     name = "odd-one-out"
        ...     texts = ("a cat sleeps", "the cat sleeps", "rain in Paris")
        ...     def sentences(self):
        ...         return self.texts
        ...     def score(self, vectors, *, progress=False):
        ...         unit = vectors(self.texts)
        ...         unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        ...         right = int(np.argmin((unit @ unit.T).sum(axis=1)) == 2)
        ...         metrics, counts = {"accuracy": 100.0 * right}, {"groups": 1}
        ...         return TaskScore(self.name, "choice", "accuracy", metrics, counts, "argmin")
        >>> register_task("odd-one-out", lambda path: OddOneOut())
        >>> evaluate("mini", "odd-one-out").beyond_sts["odd-one-out"].metrics
        {'accuracy': 100.0}
    """
    from simcse_kit.evaluation.tasks.sts import TASKS
    from simcse_kit.evaluation.tasks.transfer_files import SPECS

    if name.upper() in map(str.upper, (*TASKS, *SPECS, "sts", "transfer")):
        raise ConfigError(f"the task {name!r} exists already; choose another name")
    TASK_KINDS.register(name, load)
