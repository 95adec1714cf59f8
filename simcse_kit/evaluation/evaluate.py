"""Evaluate an encoder on STS tasks and on files of graded pairs."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.inputs import path_text
from simcse_kit.encoder.token_counts import collected
from simcse_kit.encoder.unknown_text import check_known
from simcse_kit.errors import ConfigError
from simcse_kit.evaluation.embed import Embeddings, Encoder, embed
from simcse_kit.evaluation.geometry import geometry, positives
from simcse_kit.evaluation.pair_set import PairSet, concatenate
from simcse_kit.evaluation.pairs_file import load_pairs_file
from simcse_kit.evaluation.report.details import exhibit
from simcse_kit.evaluation.results import STANDARD_TASKS, Geometry, Report, SubsetScore, TaskResult
from simcse_kit.evaluation.statistics.bootstrap import LEVEL, check_settings
from simcse_kit.evaluation.statistics.comparison import score_intervals
from simcse_kit.evaluation.tasks.base import BeyondTask
from simcse_kit.evaluation.tasks.load import load_beyond, split_entries
from simcse_kit.evaluation.tasks.sts import find_task, load_task
from simcse_kit.metrics.correlation import paired_cosine, pearson, spearman
from simcse_kit.utils.environment import environment

__all__ = ["Task", "evaluate", "load_all_tasks", "load_tasks"]

logger = logging.getLogger(__name__)

Task: TypeAlias = list[PairSet] | BeyondTask
"""A loaded task: the subsets of an STS task, or one beside STS."""

DEFAULT_GEOMETRY = "STSB"
_SOURCES = {
    "STSB": "STS-B test",
    "STSB-dev": "STS-B dev",
    "STSB-train": "STS-B train",
    "STSB-full": "STS-B train + dev + test",
}


def evaluate(
    encoder: Encoder,
    tasks: str | Path | Sequence[str | Path] | Mapping[str, Task] = "sts",
    *,
    data: str | Path | None = None,
    geometry_on: str | None = DEFAULT_GEOMETRY,
    progress: bool = False,
    name: str | None = None,
    resamples: int = 0,
    exhibits: bool = False,
    allow_unknown: bool = False,
) -> Report:
    """Score ``encoder`` on ``tasks``.

    STS is scored by cosine, no regressor, Spearman x100 over all pairs of a task.

    All data is loaded and verified first; then the distinct sentences of all tasks together are
    encoded in one call.

    Args:
        encoder: any object whose ``encode(list[str])`` gives (n, d) numbers.
        tasks: see :func:`load_all_tasks`; or what that or :func:`load_tasks` gave, so that several
            encoders share it.
        data: folder in the SentEval layout; without it named tasks come from the Hub.
        geometry_on: where alignment and uniformity are taken: a name or file such as ``"STSB"``
            (its test split), ``"STSB-dev"``, ``"STSB-full"`` (the whole set, as in the papers), or
            None for not at all. With ``"STSB"``, the default, and no STSB among the tasks, it is
            the first task that has positive pairs.
        progress: handed on to ``encode`` where it takes it.
        name: the model's name in the report; the encoder's class without it.
        resamples: of the bootstrap for confidence intervals, 10,000 as a rule; 0 for none.
        exhibits: gather what a report page shows of the sentences as well.
        allow_unknown: evaluate on text that the encoder's tokenizer mostly does not know.

    Raises:
        ConfigError: unknown task, or no task at all.
        DataError: data is missing or wrong, or mostly unknown to a SentenceEncoder.
        MissingExtraError: a task needs scikit-learn.
        ModelError: ``encode`` gave something other than (n, d) finite, non-zero vectors.
    """
    if isinstance(tasks, Mapping) and not tasks:
        raise ConfigError("no task is given; give 'sts', task names, or files of graded pairs")
    if data is not None:
        path_text(data, "data")
    if not isinstance(resamples, int) or resamples:
        check_settings(resamples, LEVEL)
    start = time.perf_counter()
    every = tasks if isinstance(tasks, Mapping) else load_all_tasks(tasks, data)
    loaded = {key: task for key, task in every.items() if isinstance(task, list)}
    beside = {key: task for key, task in every.items() if not isinstance(task, list)}
    plain = not loaded and geometry_on == DEFAULT_GEOMETRY
    shape = None if geometry_on is None or plain else _geometry_pairs(geometry_on, loaded, data)
    needed = [part for sets in loaded.values() for part in sets]
    needed += [] if shape is None else [shape[0]]
    sentences = [text for part in needed for text in part.sentences()]
    sentences += [text for task in beside.values() for text in task.sentences()]
    if isinstance(encoder, SentenceEncoder):
        check_known(encoder, sentences, what="the text of the tasks", allow=allow_unknown)
    with collected() as tokens:
        vectors = embed(encoder, sentences, progress=progress)
    results = {key: _score(key, sets, vectors) for key, sets in loaded.items()}
    scores = {
        key: replace(task.score(vectors, progress=progress), name=key)
        for key, task in beside.items()
    }
    found: Geometry | None = None if shape is None else geometry(vectors, *shape, progress=progress)
    pooling = getattr(encoder, "pooling", None)
    report = Report(
        model=name or type(encoder).__name__,
        pooling=pooling if isinstance(pooling, str) else "unknown",
        tasks=results,
        average=_average(results),
        geometry=found,
        versions=environment(),
        seconds=time.perf_counter() - start,
        beyond_sts=scores,
        exhibit=exhibit(encoder, vectors, loaded, results, *(shape or (None, "")))
        if exhibits
        else None,
        tokens=tokens if tokens.sentences else None,
    )
    if not resamples or not results:
        return report
    intervals = score_intervals(report, resamples=resamples, progress=progress)
    return replace(report, intervals=intervals)


def load_all_tasks(
    tasks: str | Path | Sequence[str | Path], data: str | Path | None = None
) -> dict[str, Task]:
    """Load and verify STS and other tasks.

    Args:
        tasks: as for :func:`load_tasks`, and beside those MR, CR, SUBJ, MPQA, SST2, TREC, MRPC (or
            "transfer" for the seven), "retrieval:DIR", "paraphrase:FILE", "clustering:FILE".
        data: folder in the SentEval layout; without it STS comes from the Hub.

    Raises:
        ConfigError: unknown task, or no task at all.
        DataError: data is missing or wrong.
        MissingExtraError: a task needs scikit-learn.
    """
    sts, others = split_entries(_listed(tasks))
    beside = load_beyond(others, data)
    return {**(load_tasks(sts, data) if sts or not beside else {}), **beside}


def load_tasks(
    tasks: str | Path | Sequence[str | Path], data: str | Path | None = None
) -> dict[str, list[PairSet]]:
    """Load and verify the data of all tasks; call it early to fail before any model is loaded.

    Args:
        tasks: ``"sts"`` (the seven standard tasks; from the Hub SICKR-all stands in for SICKR,
            which is not there), task names, paths of graded-pair files (an entry with a path
            separator, or one that ends in .tsv or .csv), or a mixture: a list,
            or one string with commas. Repeated entries count once. Of a file with a column
            ``split`` only the rows of split "test" are used.
        data: folder in the SentEval layout; without it named tasks come from the Hub.

    Returns:
        Subsets by task name, in the order asked for; a file goes by its stem.

    Raises:
        ConfigError: unknown task, or no task at all.
        DataError: data is missing or wrong.
    """
    entries = _entries(tasks, from_hub=data is None)
    # the cheap checks come first, before anything is read or fetched
    named = {entry: find_task(entry) for entry in entries if not _is_file(entry)}
    if data is None:
        for task in named.values():
            task.require_hub()
    loaded: dict[str, list[PairSet]] = {}
    for entry in entries:
        if entry in named:
            task = named[entry]
            loaded[task.name] = load_task(task.name, data)
        else:
            pairs = load_pairs_file(entry, split="test", if_present=True)
            taken = pairs.name in loaded or pairs.name.upper() in map(str.upper, STANDARD_TASKS)
            loaded[entry if taken else pairs.name] = [pairs]
    return loaded


def _listed(tasks: str | Path | Sequence[str | Path]) -> list[str]:
    given: Iterable[str]
    if isinstance(tasks, str | Path):
        # a file whose name holds a comma is one entry
        given = [str(tasks)] if _exists(tasks) else str(tasks).split(",")
    elif isinstance(tasks, list | tuple) and all(isinstance(entry, str | Path) for entry in tasks):
        given = map(str, tasks)
    else:
        raise ConfigError(
            f"tasks are {' '.join(repr(tasks).split()):.60}; give a name, a path, or a list of them"
        )
    return [entry for entry in map(str.strip, given) if entry]


def _entries(tasks: str | Path | Sequence[str | Path], *, from_hub: bool) -> list[str]:
    """Task names and paths, groups spelled out, each once."""
    entries: dict[str, None] = {}
    for entry in _listed(tasks):
        group = STANDARD_TASKS if entry.lower() == "sts" else (entry,)
        if from_hub and group == STANDARD_TASKS:
            logger.warning(
                "the Hub has SICK-R only as 9,927 pairs, so SICKR-all stands in for SICKR and "
                "there is no seven-task average; give the SentEval folder to have both"
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
    separators = {"/", os.sep}
    return any(mark in entry for mark in separators) or entry.lower().endswith((".tsv", ".csv"))


def _geometry_pairs(
    wanted: str, loaded: dict[str, list[PairSet]], data: str | Path | None
) -> tuple[PairSet, str]:
    """The pairs for alignment and uniformity, and what to call them."""
    if wanted == DEFAULT_GEOMETRY and wanted not in loaded:
        candidates = {key: concatenate(sets, key) for key, sets in loaded.items()}
        first = next(iter(candidates))
        chosen = next((key for key, one in candidates.items() if positives(one).any()), first)
        logger.info("STSB is not among the tasks; alignment and uniformity are on %s", chosen)
        return candidates[chosen], _SOURCES.get(chosen, chosen)
    if wanted not in loaded:
        loaded = load_tasks([wanted], data)
        wanted = next(iter(loaded))
    return concatenate(loaded[wanted], wanted), _SOURCES.get(wanted, wanted)


def _score(name: str, sets: list[PairSet], vectors: Embeddings) -> TaskResult:
    cosines = [paired_cosine(vectors(one.sentences1), vectors(one.sentences2)) for one in sets]
    subsets = {
        one.name: SubsetScore(spearman(cos, one.gold), pearson(cos, one.gold), len(one))
        for one, cos in zip(sets, cosines, strict=True)
    }
    parts = np.array([score.spearman for score in subsets.values()])
    weights = np.array([score.pairs for score in subsets.values()])
    cosine, gold = np.concatenate(cosines), np.concatenate([one.gold for one in sets])
    return TaskResult(
        name=name,
        spearman=spearman(cosine, gold),
        pearson=pearson(cosine, gold),
        pairs=len(gold),
        mean=float(parts.mean()),
        wmean=float(np.average(parts, weights=weights)),
        subsets=subsets,
        cosines=cosine,
        gold=gold,
        scale=sets[0].scale,
    )


def _average(results: dict[str, TaskResult]) -> float | None:
    if any(task not in results for task in STANDARD_TASKS):
        return None
    return float(np.mean([results[task].spearman for task in STANDARD_TASKS]))
