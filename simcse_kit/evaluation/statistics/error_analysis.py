"""Where two models differ: the pairs that moved most, and kinds of pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from simcse_kit.evaluation.pair_set import PairSet
from simcse_kit.evaluation.records import TaskResult
from simcse_kit.evaluation.statistics.bootstrap import Bootstrap, Interval, Sample
from simcse_kit.evaluation.statistics.distribution import least_resamples
from simcse_kit.evaluation.statistics.slices import slices

__all__ = ["Flip", "SliceScore", "flips_of", "places", "sample_of", "slice_scores"]

# A slice with fewer pairs of a task says nothing about that task.
_SLICE_PAIRS = 30
_SLICE_RESAMPLES = 2000


@dataclass(frozen=True)
class Flip:
    """A pair that two models place differently.

    Attributes:
        task: where it is from.
        sentence1: its first sentence.
        sentence2: its second sentence.
        gold: its grade.
        places: where the gold score, the first model and the other model place it among the pairs
            of the task, from 0 (least alike) to 1.
        gain: how much nearer to the gold place the other model's is than the first's, -1 to 1.
    """

    task: str
    sentence1: str
    sentence2: str
    gold: float
    places: tuple[float, float, float]
    gain: float


@dataclass(frozen=True)
class SliceScore:
    """One kind of pairs.

    Attributes:
        name: of the slice.
        pairs: how many there are.
        tasks: tasks that hold at least 30 of them; scores are means over those.
        scores: of every model, Spearman x100.
        difference: of the model less the first, with its interval.
    """

    name: str
    pairs: int
    tasks: int
    scores: list[float]
    difference: Interval


def sample_of(models: Sequence[TaskResult]) -> Sample:
    """One task of several models, with its subsets as strata."""
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
    """The pairs that moved most, best for the second model first.

    Args:
        pairs: of every task.
        tasks: name -> the task of the first model and of the other.
        most: pairs at each end.
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
    """Scores and differences on each kind of pairs of :data:`SLICES`.

    Args:
        pairs: of every task.
        tasks: name -> the task of the first model and of the other.
        seed: of the bootstrap.
        level: of the intervals.
        progress: bars on stderr, after two seconds, on a terminal.
    """
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
    """The pairs that are in a slice; None where they are too few or all graded alike."""
    if inside.sum() < _SLICE_PAIRS or np.ptp(sample.gold[inside]) == 0:
        return None
    ends = np.cumsum(sample.strata)
    sizes = [int(part.sum()) for part in np.split(inside, ends[:-1])]
    return Sample(
        sample.gold[inside], sample.predicted[:, inside], tuple(size for size in sizes if size)
    )
