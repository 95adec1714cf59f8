"""Evaluation of encoders on tasks and on graded pairs."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict, Unpack

from simcse_kit.encoder.device import Device, known_device
from simcse_kit.encoder.encode_options import check_dimensions, check_size
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.inputs import path_text
from simcse_kit.errors import ConfigError
from simcse_kit.evaluation.embed import Encoder
from simcse_kit.evaluation.geometry import positives
from simcse_kit.evaluation.models import open_encoder
from simcse_kit.evaluation.pair_set import PairSet, concatenate, read_scale
from simcse_kit.evaluation.results import Report
from simcse_kit.evaluation.scoring import EvaluateOptions, Material, Vectors
from simcse_kit.evaluation.statistics.bootstrap import LEVEL, RESAMPLES, check_settings
from simcse_kit.evaluation.statistics.comparison import (
    Comparison,
    compare_reports,
)
from simcse_kit.evaluation.tasks.base import LoadedTask
from simcse_kit.evaluation.tasks.load import TasksOrPairs, load_tasks, resolve_tasks

__all__ = [
    "DEFAULT_GEOMETRY",
    "CompareOptions",
    "compare",
    "evaluate",
    "evaluate_dimensions",
    "graded_pairs",
]

logger = logging.getLogger(__name__)

DEFAULT_GEOMETRY = "STSB"
_SOURCES = {
    "STSB": "STS-B test",
    "STSB-dev": "STS-B dev",
    "STSB-train": "STS-B train",
    "STSB-full": "STS-B train + dev + test",
}


def evaluate(
    encoder: str | Encoder,
    tasks: TasksOrPairs = "sts",
    *,
    data: str | Path | None = None,
    name: str | None = None,
    **options: Unpack[EvaluateOptions],
) -> Report:
    """Score an encoder on tasks or on graded pairs.

    The score of STS tasks and graded pairs is Spearman x100 of the cosines over all pairs of a
    task, without a regressor (arXiv 2104.08821, appendix B). All data is loaded and verified first;
    then the distinct sentences of all tasks are encoded in one call.

    Args:
        encoder: any object whose ``encode(list[str])`` returns (n, d) numbers; or the name of a
            model, see :func:`~simcse_kit.evaluation.models.open_encoder`.
        tasks: names and files as for `simcse eval`, such as ``"sts"``; or graded pairs in memory:
            tuples (sentence1, sentence2, score), or a ``datasets.Dataset`` or a DataFrame of pandas
            or polars with these columns; or a mapping from names to pairs or tasks. See
            :func:`~simcse_kit.evaluation.tasks.load.resolve_tasks`.
        data: folder in the SentEval layout; without it STS is downloaded from the Hub.
        name: name of the model in the report; by default the class of the encoder.
        **options: see :class:`~simcse_kit.evaluation.scoring.EvaluateOptions`.

    Raises:
        ConfigError: a task is unknown, there is no task, or the device does not exist.
        DataError: data is missing or wrong, or the encoder's tokenizer does not know most of it.
        MissingExtraError: a task needs scikit-learn.
        ModelError: ``encode`` did not return (n, d) finite, non-zero vectors, or a named model
            cannot be opened.

    Examples:
        >>> pairs = [
        ...     ("A man is playing a guitar.", "A man plays the guitar.", 4.8),
        ...     ("A cat sits on the sofa.", "A dog runs in the park.", 1.2),
        ...     ("She is cooking dinner.", "The stock market fell.", 0.0),
        ... ]
        >>> report = evaluate("mini", pairs)
        >>> report.tasks["pairs"].pairs
        3
        >>> round(report.tasks["pairs"].spearman)
        100
    """
    if data is not None:
        path_text(data, "data")
    resamples = options.get("resamples", 0)
    if not isinstance(resamples, int) or resamples:
        check_settings(resamples, LEVEL)
    device = options.get("device")
    if isinstance(encoder, str):
        known_device(device)  # an absent one is refused before any data is read
    start = time.perf_counter()
    material = _material(tasks, data, options)
    if isinstance(encoder, str):
        name = name or encoder
        encoder = open_encoder(encoder, device=device)
    vectors = Vectors.of(encoder, name or type(encoder).__name__, material, options)
    return vectors.report(options, start, None)


def evaluate_dimensions(
    encoder: str | Encoder,
    dimensions: Sequence[int],
    tasks: TasksOrPairs = "sts",
    *,
    data: str | Path | None = None,
    name: str | None = None,
    **options: Unpack[EvaluateOptions],
) -> list[Report]:
    """Score the first dimensions of an encoder's vectors, which are computed once.

    This shows what truncation costs, above all of encoders that were trained for it (Matryoshka,
    arXiv 2205.13147).

    Args:
        encoder: as for :func:`evaluate`.
        dimensions: numbers of dimensions.
        tasks: as for :func:`evaluate`.
        data: as for :func:`evaluate`.
        name: as for :func:`evaluate`.
        **options: see :class:`~simcse_kit.evaluation.scoring.EvaluateOptions`.

    Returns:
        One report for each number of dimensions, in their order.

    Raises:
        ConfigError: there is no number, or one is not between 1 and the encoder's dimensions.
        SimcseError: as for :func:`evaluate`.

    Examples:
        >>> pairs = [("A cat.", "The cat.", 5), ("A cat.", "A dog.", 2), ("A cat.", "Prices.", 0)]
        >>> [report.dimensions for report in evaluate_dimensions("mini", [8, 256], pairs)]
        [8, 256]
    """
    start = time.perf_counter()
    for size in dimensions or [0]:
        check_size("dimensions", size)
    resamples = options.get("resamples", 0)
    if resamples:
        check_settings(resamples, LEVEL)
    material = _material(tasks, data, options)
    if isinstance(encoder, str):
        name = name or encoder
        encoder = open_encoder(encoder, device=options.get("device"))
    if isinstance(encoder, SentenceEncoder):
        check_dimensions(max(dimensions), encoder.embedding_dim)
    vectors = Vectors.of(encoder, name or type(encoder).__name__, material, options)
    check_dimensions(max(dimensions), vectors.embeddings.dim)
    return [vectors.report(options, start, size) for size in dimensions]


class CompareOptions(TypedDict, total=False):
    """Keyword arguments of :func:`compare`.

    Attributes:
        resamples: number of bootstrap resamples; 10,000 by default.
        seed: seed of the resampling; 0 by default.
        level: confidence level of intervals and verdicts; 0.95 by default.
        flips: number of pairs to list at each end of the changes; 5 by default.
        progress: show progress bars.
    """

    resamples: int
    seed: int
    level: float
    flips: int
    progress: bool


def compare(
    encoders: Mapping[str, str | Encoder] | Sequence[str | Encoder],
    tasks: TasksOrPairs = "sts",
    *,
    data: str | Path | None = None,
    device: Device = "auto",
    **options: Unpack[CompareOptions],
) -> Comparison:
    """Test whether encoders differ from the first one, on STS tasks or graded pairs.

    Args:
        encoders: two or more, each as for :func:`evaluate`; a mapping gives them names.
        tasks: STS tasks or graded pairs, as for :func:`evaluate`.
        data: folder in the SentEval layout; without it STS is downloaded from the Hub.
        device: device of encoders that are given by their names, as for
            :meth:`SentenceEncoder.load`.
        **options: see :class:`CompareOptions`.

    Returns:
        Differences with bootstrap intervals, p-values and verdicts.

    Raises:
        ConfigError: a task is unknown or not of graded pairs, fewer than two encoders are given,
            there are too few resamples for a verdict, or the device does not exist.
        DataError: data is missing or wrong.
        ModelError: an encoder cannot be opened or did not return (n, d) finite vectors.

    Examples:
        >>> words = "cat dog bird horse".split()
        >>> pairs = [(f"a {a}", f"one {b}", 5.0 * (a == b)) for a in words for b in words]
        >>> comparison = compare({"one": "mini", "same": "mini"}, pairs, resamples=200)
        >>> comparison.differences[0].verdict
        'no difference shown'
    """
    named = encoders if isinstance(encoders, Mapping) else None
    systems = list(encoders.values() if isinstance(encoders, Mapping) else encoders)
    loaded = resolve_tasks(tasks, data)
    sets = graded_pairs(loaded)
    if len(sets) < len(loaded):
        other = next(name for name in loaded if name not in sets)
        raise ConfigError(f"compare takes STS tasks and graded pairs; leave out {other!r}")
    if len(systems) < 2:
        raise ConfigError("a comparison takes two encoders or more")
    tests = (len(systems) - 1) * len(sets)
    check_settings(options.get("resamples", RESAMPLES), options.get("level", LEVEL), tests)
    names = list(named) if named else [None] * len(systems)
    progress = options.get("progress", False)
    reports = [
        evaluate(encoder, sets, geometry_on=None, name=name, progress=progress, device=device)
        for encoder, name in zip(systems, names, strict=True)
    ]
    return compare_reports(reports, sets, **options)


def graded_pairs(tasks: Mapping[str, LoadedTask]) -> dict[str, list[PairSet]]:
    """Select the STS tasks and files of graded pairs among loaded tasks."""
    return {name: task for name, task in tasks.items() if isinstance(task, list)}


def _material(tasks: TasksOrPairs, data: str | Path | None, options: EvaluateOptions) -> Material:
    every = resolve_tasks(tasks, data, read_scale(options.get("scale")))
    sts = graded_pairs(every)
    others = {key: task for key, task in every.items() if not isinstance(task, list)}
    shape = _geometry_pairs(options.get("geometry_on", DEFAULT_GEOMETRY), sts, data)
    return Material(sts, others, shape)


def _geometry_pairs(
    wanted: str | None, loaded: dict[str, list[PairSet]], data: str | Path | None
) -> tuple[PairSet, str] | None:
    """Return the pairs for alignment and uniformity, and their description; None for none."""
    if wanted is None or (not loaded and wanted == DEFAULT_GEOMETRY):
        return None
    if wanted == DEFAULT_GEOMETRY and wanted not in loaded:
        candidates = {key: concatenate(sets, key) for key, sets in loaded.items()}
        first = next(iter(candidates))
        chosen = next((key for key, one in candidates.items() if positives(one).any()), first)
        logger.info("STSB is not among the tasks; alignment and uniformity use %s", chosen)
        return candidates[chosen], _SOURCES.get(chosen, chosen)
    if wanted not in loaded:
        loaded = load_tasks([wanted], data)
        wanted = next(iter(loaded))
    return concatenate(loaded[wanted], wanted), _SOURCES.get(wanted, wanted)
