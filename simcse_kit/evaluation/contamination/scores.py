"""Scores on the pairs without a sentence that the training text contains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from simcse_kit.encoder.device import Device
from simcse_kit.evaluation.evaluate import evaluate
from simcse_kit.evaluation.pair_set import PairSet
from simcse_kit.evaluation.results import Report
from simcse_kit.metrics.correlation import spearman
from simcse_kit.utils.printable import one_line

__all__ = ["CleanScore", "clean_scores", "render_clean_scores", "score_models"]

_LEAST_PAIRS = 3


@dataclass(frozen=True)
class CleanScore:
    """Spearman x100 of one task, with and without the pairs that have a matched sentence.

    Attributes:
        all: score over all pairs.
        clean: score over the clean pairs; NaN if there are fewer than 3.
        pairs: number of all pairs.
        clean_pairs: number of clean pairs.
    """

    all: float
    clean: float
    pairs: int
    clean_pairs: int


def clean_scores(
    report: Report, sets: Mapping[str, Sequence[PairSet]], found: Mapping[str, Sequence[str]]
) -> dict[str, CleanScore]:
    """Compute the scores of an evaluation on its clean pairs.

    Args:
        report: report of the evaluation.
        sets: subsets of each task.
        found: sentences of each task that the training text contains.
    """
    scores = {}
    for name, task in report.tasks.items():
        leaked = set(found.get(name, ()))
        clean = np.array(
            [
                one not in leaked and two not in leaked
                for part in sets[name]
                for one, two in zip(part.sentences1, part.sentences2, strict=True)
            ]
        )
        enough = clean.sum() >= _LEAST_PAIRS
        scores[name] = CleanScore(
            all=task.spearman,
            clean=spearman(task.cosines[clean], task.gold[clean]) if enough else float("nan"),
            pairs=task.pairs,
            clean_pairs=int(clean.sum()),
        )
    return scores


def score_models(
    models: Sequence[str],
    sets: Mapping[str, list[PairSet]],
    found: Mapping[str, Sequence[str]],
    *,
    device: Device = "auto",
) -> dict[str, dict[str, CleanScore]]:
    """Score models with and without the pairs that have a matched sentence.

    Args:
        models: names of models, see :func:`~simcse_kit.evaluation.models.open_encoder`.
        sets: subsets of each task.
        found: sentences of each task that the training text contains.
        device: device of the models, as for :meth:`SentenceEncoder.load`.

    Returns:
        Scores by task, by model.
    """
    scores = {}
    for name in models:
        report = evaluate(
            name,
            sets,
            geometry_on=None,
            progress=True,
            name=name,
            allow_unknown=True,
            device=device,
        )
        scores[name] = clean_scores(report, sets, found)
    return scores


def render_clean_scores(model: str, scores: Mapping[str, CleanScore]) -> str:
    """Format the scores as lines for a terminal."""
    lines = [
        f"{one_line(model)}: Spearman x100 on all pairs, and on those without a matched sentence"
    ]
    width = max(len(one_line(name)) for name in scores)
    lines += [
        f"{one_line(name).ljust(width)}  {each.all:7.2f} ({each.pairs} pairs)  {each.clean:7.2f} "
        f"({each.clean_pairs})  {each.clean - each.all:+.2f}"
        for name, each in scores.items()
    ]
    return "\n".join(lines)
