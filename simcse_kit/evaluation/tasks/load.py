"""From entries such as ``MR`` or ``retrieval:DIR`` to loaded tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from simcse_kit.errors import ConfigError
from simcse_kit.evaluation.tasks.base import BeyondTask, require_sklearn
from simcse_kit.evaluation.tasks.clustering import load_clustering
from simcse_kit.evaluation.tasks.paraphrase import load_paraphrase
from simcse_kit.evaluation.tasks.retrieval import load_retrieval
from simcse_kit.evaluation.tasks.transfer import load_transfer
from simcse_kit.evaluation.tasks.transfer_files import REMEDY, SPECS

__all__ = ["load_beyond", "split_entries"]

_LOADERS: dict[str, Callable[[str], BeyondTask]] = {
    "retrieval": load_retrieval,
    "paraphrase": load_paraphrase,
    "clustering": load_clustering,
}


def split_entries(entries: Sequence[str]) -> tuple[list[str], list[str]]:
    """STS entries, and those beside: a transfer task, ``transfer`` for all seven, or KIND:PATH."""
    sts: list[str] = []
    beyond_sts: dict[str, None] = {}
    for entry in entries:
        if entry.lower() == "transfer":
            beyond_sts.update(dict.fromkeys(SPECS))
        elif entry.upper() in SPECS:
            beyond_sts[entry.upper()] = None
        elif entry.partition(":")[0] in _LOADERS and ":" in entry:
            beyond_sts[entry] = None
        else:
            sts.append(entry)
    return sts, list(beyond_sts)


def load_beyond(entries: Sequence[str], data: str | Path | None) -> dict[str, BeyondTask]:
    """Load and verify the tasks of ``entries``, by name; a name that is taken goes by its entry.

    Raises:
        ConfigError: a transfer task without ``data``, or a kind without a path.
        DataError: the data is missing or wrong.
        MissingExtraError: scikit-learn is needed and not installed.
    """
    loaded: dict[str, BeyondTask] = {}
    for entry in entries:
        kind, _, path = entry.partition(":")
        if kind in _LOADERS and not path:
            raise ConfigError(f"task {entry!r} names no file or folder; give {kind}:PATH")
        if entry in SPECS or kind == "clustering":
            require_sklearn(f"the task {entry}")
        if entry in SPECS:
            if data is None:
                raise ConfigError(f"task {entry} has no data; {REMEDY}")
            task: BeyondTask = load_transfer(entry, data)
        else:
            task = _LOADERS[kind](path)
        loaded[entry if task.name in loaded or task.name in SPECS else task.name] = task
    return loaded
