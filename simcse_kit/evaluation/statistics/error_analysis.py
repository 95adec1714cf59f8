"""Error analysis of two models: the pairs that moved most, and scores by kind of pair."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from simcse_kit.evaluation.pair_set import PairSet
from simcse_kit.evaluation.records import TaskResult
from simcse_kit.evaluation.statistics.bootstrap import Bootstrap, Interval, Sample
from simcse_kit.evaluation.statistics.distribution import least_resamples

__all__ = [
    "SLICES",
    "Flip",
    "SliceScore",
    "flips_of",
    "places",
    "sample_of",
    "slice_scores",
    "slices",
]

# Smaller slices of a task are too noisy to report.
_SLICE_PAIRS = 30
_SLICE_RESAMPLES = 2000

_WORD = re.compile(r"\w+(?:'\w+)?", re.UNICODE)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_NEGATIONS = frozenset(
    "no not none nobody nothing nowhere never neither nor without cannot n't hardly".split()
)


@dataclass(frozen=True)
class Flip:
    """A pair that two models rank differently.

    ``places`` are its ranks in the task by human score, by the first and by the second model,
    scaled from 0 (least similar) to 1. ``gain`` is how much closer the second model's rank is to
    the rank by human score, -1 to 1.
    """

    task: str
    sentence1: str
    sentence2: str
    gold: float
    places: tuple[float, float, float]
    gain: float


@dataclass(frozen=True)
class SliceScore:
    """Spearman x100 of two models on one kind of pair, and the difference, second minus first.

    Scores are means over the ``tasks`` with at least 30 of the ``pairs``.
    """

    name: str
    pairs: int
    tasks: int
    scores: list[float]
    difference: Interval


def sample_of(models: Sequence[TaskResult]) -> Sample:
    """Combine the results of several models on one task, with its subsets as strata."""
    first = models[0]
    return Sample(
        gold=first.gold,
        predicted=np.stack([task.cosines for task in models]),
        strata=tuple(score.pairs for score in first.subsets.values()),
    )


def places(values: np.ndarray) -> np.ndarray:
    """Scale average ranks to 0 (lowest) to 1 (highest).

    Examples:
        >>> places(np.array([5.0, 1.0, 5.0])).tolist()
        [0.75, 0.0, 0.75]
    """
    return np.asarray((rankdata(values) - 1) / max(1, len(values) - 1))


def flips_of(
    pairs: Mapping[str, PairSet],
    tasks: Mapping[str, tuple[TaskResult, TaskResult]],
    most: int,
) -> list[Flip]:
    """Find the pairs that moved most between two models, best for the second model first.

    The list has at most ``most`` improved, and as many worsened, pairs.
    """
    found = []
    for name, (first, other) in tasks.items():
        gold, one, two = map(places, (first.gold, first.cosines, other.cosines))
        gains = np.abs(one - gold) - np.abs(two - gold)
        order = np.argsort(-gains, kind="stable")
        ends = [*order[:most], *order[max(most, len(order) - most) :]]
        found += [
            Flip(
                task=name,
                sentence1=pairs[name].sentences1[at],
                sentence2=pairs[name].sentences2[at],
                gold=float(first.gold[at]),
                places=(float(gold[at]), float(one[at]), float(two[at])),
                gain=float(gains[at]),
            )
            for at in ends
        ]
    found.sort(key=lambda flip: -flip.gain)
    return [
        flip
        for place, flip in enumerate(found)
        if (place < most and flip.gain > 0) or (place >= len(found) - most and flip.gain < 0)
    ]


def slice_scores(
    pairs: Mapping[str, PairSet],
    tasks: Mapping[str, tuple[TaskResult, TaskResult]],
    seed: int,
    level: float,
    *,
    progress: bool = False,
) -> list[SliceScore]:
    """Score two models on each kind of pair in :data:`SLICES`, with bootstrap intervals."""
    samples: dict[str, dict[str, Sample]] = {}
    counts: dict[str, int] = {}
    for name, models in tasks.items():
        for kind, inside in slices(pairs[name]).items():
            counts[kind] = counts.get(kind, 0) + int(inside.sum())
            sample = _part(sample_of(models), inside)
            if sample is not None:
                samples.setdefault(kind, {})[name] = sample
    found = []
    for kind, pairs_of_kind in counts.items():
        if kind not in samples:
            continue
        resamples = max(_SLICE_RESAMPLES, least_resamples(level))
        bootstrap = Bootstrap(samples[kind], resamples=resamples, seed=seed, progress=progress)
        members = list(samples[kind])
        gap, _ = bootstrap.difference(members, 1, level=level)
        scores = [
            float(np.mean([bootstrap.estimates[task][model] for task in members]))
            for model in range(2)
        ]
        found.append(SliceScore(kind, pairs_of_kind, len(members), scores, gap))
    return found


def _part(sample: Sample, inside: np.ndarray) -> Sample | None:
    """Select the pairs of a slice; None if they are too few or all have the same human score."""
    if inside.sum() < _SLICE_PAIRS or np.ptp(sample.gold[inside]) == 0:
        return None
    ends = np.cumsum(sample.strata)
    sizes = [int(part.sum()) for part in np.split(inside, ends[:-1])]
    return Sample(
        sample.gold[inside], sample.predicted[:, inside], tuple(size for size in sizes if size)
    )


def slices(pairs: PairSet) -> dict[str, NDArray[np.bool_]]:
    """Assign pairs to the slices of :data:`SLICES`, which overlap: for each slice (n,) bool.

    Examples:
        >>> pairs = PairSet("t", ["It is not red."], ["It is red."], np.zeros(1))
        >>> [name for name, inside in slices(pairs).items() if inside.any()]
        ['length differs by 0-1 words', 'word overlap 0.5 or more', 'one sentence is negated']
    """
    split = [
        (_words(one), _words(two))
        for one, two in zip(pairs.sentences1, pairs.sentences2, strict=True)
    ]
    return {
        name: np.array([belongs(one, two) for one, two in split], dtype=bool)
        for name, belongs in SLICES.items()
    }


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _overlap(one: list[str], two: list[str]) -> float:
    """Compute Jaccard's index of the distinct words."""
    return len({*one} & {*two}) / max(1, len({*one, *two}))


def _gap(one: list[str], two: list[str]) -> int:
    return abs(len(one) - len(two))


def _negated(words: list[str]) -> bool:
    return any(word in _NEGATIONS or word.endswith("n't") for word in words)


def _numbers(words: list[str]) -> list[str]:
    return sorted(word for word in words if _NUMBER.fullmatch(word))


SLICES: dict[str, Callable[[list[str], list[str]], bool]] = {
    "length differs by 0-1 words": lambda one, two: _gap(one, two) <= 1,
    "length differs by 2-4 words": lambda one, two: 2 <= _gap(one, two) <= 4,
    "length differs by 5 words or more": lambda one, two: _gap(one, two) >= 5,
    "word overlap below 0.25": lambda one, two: _overlap(one, two) < 0.25,
    "word overlap 0.25 to 0.5": lambda one, two: 0.25 <= _overlap(one, two) < 0.5,
    "word overlap 0.5 or more": lambda one, two: _overlap(one, two) >= 0.5,
    "one sentence is negated": lambda one, two: _negated(one) != _negated(two),
    "different numbers": lambda one, two: _numbers(one) != _numbers(two),
    "same words, other order": lambda one, two: one != two and sorted(one) == sorted(two),
}
"""Kinds of pairs: for each slice, whether a pair of word lists belongs to it."""
