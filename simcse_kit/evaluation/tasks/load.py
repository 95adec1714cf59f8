"""Loading of tasks by name, from files, and from rows in memory."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from simcse_kit.data.files import suffix_of
from simcse_kit.data.in_memory import is_table
from simcse_kit.data.remote import is_remote
from simcse_kit.errors import ConfigError
from simcse_kit.evaluation.pair_set import PairSet, as_pair_set
from simcse_kit.evaluation.pairs_file import load_pairs_file
from simcse_kit.evaluation.results import STANDARD_TASKS
from simcse_kit.evaluation.tasks import TASK_KINDS
from simcse_kit.evaluation.tasks.base import LoadedTask, Task, require_sklearn
from simcse_kit.evaluation.tasks.sts import STSTask, find_task, load_task
from simcse_kit.evaluation.tasks.transfer import load_transfer
from simcse_kit.evaluation.tasks.transfer_files import REMEDY, SPECS

__all__ = [
    "Names",
    "TasksOrPairs",
    "load_all_tasks",
    "load_tasks",
    "resolve_tasks",
]

logger = logging.getLogger(__name__)

Names: TypeAlias = str | Path | Sequence[str | Path]
"""A task name, a path, several of them in one string with commas, or a list of them."""

TasksOrPairs: TypeAlias = Names | Mapping[str, Any] | Iterable[Any]
"""Names of tasks, tasks by name, or graded pairs in memory; see :func:`resolve_tasks`."""


def resolve_tasks(
    tasks: TasksOrPairs, data: str | Path | None = None, scale: tuple[float, float] | None = None
) -> dict[str, LoadedTask]:
    """Load and verify tasks in any form.

    Args:
        tasks: one of

            - names and paths, as for :func:`load_all_tasks`;
            - graded pairs in memory, as for
              :func:`~simcse_kit.evaluation.pair_set.as_pair_set`; they get the name "pairs";
            - a mapping from a name to graded pairs in memory, to loaded subsets, or to a
              :class:`~simcse_kit.evaluation.tasks.base.Task`.
        data: folder in the SentEval layout; without it STS is downloaded from the Hub.
        scale: lowest and highest score of graded pairs; None infers it.

    Raises:
        ConfigError: a task is unknown, or there is no task.
        DataError: data is missing or wrong.
        MissingExtraError: a task needs scikit-learn.
    """
    if isinstance(tasks, Mapping):
        if not tasks:
            raise ConfigError("no task is given; give 'sts', task names, or files of graded pairs")
        return {name: _in_memory(name, task, scale) for name, task in tasks.items()}
    if is_table(tasks):
        return {"pairs": [as_pair_set(tasks, scale=scale)]}  # type: ignore[arg-type]
    names = isinstance(tasks, str | Path) or not isinstance(tasks, Iterable)
    names = names or (isinstance(tasks, list | tuple) and _all(tasks, (str, Path)))
    if names:
        return load_all_tasks(tasks, data, scale)  # type: ignore[arg-type]
    return {"pairs": [as_pair_set(tasks, scale=scale)]}  # type: ignore[arg-type]


def _in_memory(name: str, task: Any, scale: tuple[float, float] | None) -> LoadedTask:
    if isinstance(task, list) and task and _all(task, PairSet):
        return task
    # A DataFrame with a column `score` has an attribute of this name.
    if isinstance(task, PairSet) or is_table(task) or not hasattr(task, "score"):
        return [as_pair_set(task, name, scale)]
    found: Task = task
    return found


def _all(entries: Sequence[Any], kind: type | tuple[type, ...]) -> bool:
    return all(isinstance(entry, kind) for entry in entries)


def load_all_tasks(
    tasks: Names, data: str | Path | None = None, scale: tuple[float, float] | None = None
) -> dict[str, LoadedTask]:
    """Load and verify STS and other tasks.

    Args:
        tasks: names and paths as for :func:`load_tasks`; MR, CR, SUBJ, MPQA, SST2, TREC, MRPC, or
            "transfer" for the seven; "retrieval:DIR", "paraphrase:FILE", "clustering:FILE"; tasks
            added by :func:`~simcse_kit.evaluation.tasks.register_task`.
        data: folder in the SentEval layout; without it STS is downloaded from the Hub.
        scale: lowest and highest score in files of graded pairs; None infers it.

    Raises:
        ConfigError: a task is unknown, there is no task, or no file that ``scale`` applies to.
        DataError: data is missing or wrong.
        MissingExtraError: a task needs scikit-learn.
    """
    sts: list[str] = []
    others: dict[str, None] = {}
    for entry in _listed(tasks):
        if entry.lower() == "transfer":
            others.update(dict.fromkeys(SPECS))
        elif entry.upper() in SPECS:
            others[entry.upper()] = None
        elif entry.partition(":")[0] in TASK_KINDS:
            others[entry] = None
        else:
            sts.append(entry)
    if scale is not None and not any(map(_is_file, sts)):
        raise ConfigError(
            f"the scale {scale[0]:g},{scale[1]:g} is for files of graded pairs, and the tasks name "
            "none; leave --scale out"
        )
    loaded: dict[str, LoadedTask] = {}
    for entry in others:
        task = _load_other(entry, data)
        loaded[entry if task.name in loaded or task.name in SPECS else task.name] = task
    return {**(load_tasks(sts, data, scale) if sts or not others else {}), **loaded}


def _load_other(entry: str, data: str | Path | None) -> Task:
    kind, _, path = entry.partition(":")
    if entry in SPECS or kind == "clustering":
        require_sklearn(f"the task {entry}")
    if entry in SPECS:
        if data is None:
            raise ConfigError(f"task {entry} has no data; {REMEDY}")
        return load_transfer(entry, data)
    if not path and kind in ("retrieval", "paraphrase", "clustering"):
        raise ConfigError(f"task {entry!r} names no file or folder; give {kind}:PATH")
    found: Task = TASK_KINDS.resolve(kind)(path)
    return found


def load_tasks(
    tasks: Names, data: str | Path | None = None, scale: tuple[float, float] | None = None
) -> dict[str, list[PairSet]]:
    """Load and verify STS tasks and files of graded pairs.

    Args:
        tasks: ``"sts"`` (the seven standard tasks; from the Hub with SICKR-all in place of SICKR,
            which it lacks), task names, paths of files of graded pairs (an entry that contains a
            path separator or ends like a data file, such as .csv or .jsonl), or several of these,
            in a list or in one string with commas. Repeated entries count once. If a file has a
            column ``split``, only its rows of split "test" are used.
        data: folder in the SentEval layout; without it named tasks are downloaded from the Hub.
        scale: lowest and highest score in files of graded pairs; None infers it.

    Returns:
        Subsets by task name, in the given order; the name of a file is its stem.

    Raises:
        ConfigError: a task is unknown, or there is no task.
        DataError: data is missing or wrong.
    """
    entries = _entries(tasks, from_hub=data is None)
    # All names are checked before anything is read or downloaded.
    named: dict[str, STSTask] = {
        entry: find_task(entry, also=(*SPECS, "transfer", *TASK_KINDS))
        for entry in entries
        if not _is_file(entry)
    }
    if data is None:
        for task in named.values():
            task.require_hub()
    loaded: dict[str, list[PairSet]] = {}
    for entry in entries:
        if entry in named:
            task = named[entry]
            loaded[task.name] = load_task(task.name, data)
        else:
            pairs = load_pairs_file(entry, split="test", if_present=True, scale=scale)
            taken = pairs.name in loaded or pairs.name.upper() in map(str.upper, STANDARD_TASKS)
            loaded[entry if taken else pairs.name] = [pairs]
    return loaded


def _listed(tasks: Names) -> list[str]:
    given: Iterable[str]
    if isinstance(tasks, str | Path):
        # The name of a file may contain a comma, and so may the columns of a data set.
        whole = _exists(tasks) or (is_remote(tasks) and "#" in str(tasks))
        given = [str(tasks)] if whole else str(tasks).split(",")
    elif isinstance(tasks, list | tuple) and _all(tasks, (str, Path)):
        given = map(str, tasks)
    else:
        raise ConfigError(
            f"tasks are {' '.join(repr(tasks).split()):.60}; give a name, a path, a list of them, "
            "or graded pairs"
        )
    return [entry for entry in map(str.strip, given) if entry]


def _entries(tasks: Names, *, from_hub: bool) -> list[str]:
    """List task names and paths, each once, with the seven standard tasks in place of ``sts``."""
    entries: dict[str, None] = {}
    for entry in _listed(tasks):
        group = STANDARD_TASKS if entry.lower() == "sts" else (entry,)
        if from_hub and group == STANDARD_TASKS:
            logger.warning(
                "the Hub has SICK-R only as 9,927 pairs, so SICKR-all replaces SICKR and the "
                "seven-task average is not computed; give the SentEval folder to have both"
            )
            group = (*STANDARD_TASKS[:-1], "SICKR-all")
        entries.update(dict.fromkeys(group))
    if not entries:
        raise ConfigError("no task is named; give 'sts', task names, or files of graded pairs")
    return list(entries)


def _exists(entry: str | Path) -> bool:
    try:
        return Path(entry).is_file()
    except OSError:  # a long list of names is too long for a path
        return False


def _is_file(entry: str) -> bool:
    return any(mark in entry for mark in {"/", os.sep}) or suffix_of(entry) is not None
