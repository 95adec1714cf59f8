"""Records that an evaluation consists of: scores, intervals, geometry, and sentences to show.

Correlations are multiplied by 100 and not rounded. NaN means undefined (for example a correlation
with a constant) and becomes ``null`` in JSON.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from simcse_kit.evaluation.statistics.bootstrap import Interval

if TYPE_CHECKING:
    from simcse_kit.encoder.token_counts import TokenCounts

__all__ = [
    "AVERAGE",
    "STANDARD_TASKS",
    "TRANSFER_TASKS",
    "Audit",
    "Exhibit",
    "Geometry",
    "Intervals",
    "Miss",
    "SentenceMap",
    "SubsetScore",
    "TaskResult",
    "TaskScore",
]

AVERAGE = "Avg."
"""Name of the mean of the seven standard tasks among the names of tasks."""

STANDARD_TASKS = ("STS12", "STS13", "STS14", "STS15", "STS16", "STSB", "SICKR")
"""The seven tasks whose mean is the usual "Avg." column (arXiv 2104.08821, table 5)."""

TRANSFER_TASKS = ("MR", "CR", "SUBJ", "MPQA", "SST2", "TREC", "MRPC")
"""SentEval's seven transfer tasks, in the order of the papers (arXiv 1803.05449)."""


@dataclass(frozen=True)
class SubsetScore:
    """Correlations x100 over the scored pairs of one subset; NaN if undefined."""

    spearman: float
    pearson: float
    pairs: int


@dataclass(frozen=True)
class TaskResult:
    """The scores of one STS task, x100.

    ``spearman`` and ``pearson`` are over the concatenation of all subsets (the setting "all");
    ``mean`` and ``wmean`` are the plain and the pair-weighted mean of the subsets' Spearman, as in
    `SentEval <https://github.com/princeton-nlp/SimCSE/blob/7edb07e05cec0d5293fc1696b578d8056dba76ef/SentEval/senteval/sts.py>`_.
    ``cosines`` (float64, in [-1, 1]) and ``gold`` (on ``scale``) have one value for each pair, in
    the order of the subsets.
    """

    name: str
    spearman: float
    pearson: float
    pairs: int
    mean: float
    wmean: float
    subsets: dict[str, SubsetScore]
    cosines: np.ndarray
    gold: np.ndarray
    scale: tuple[float, float]


@dataclass(frozen=True)
class TaskScore:
    """The scores of one task other than STS.

    ``kind`` is "transfer", "paraphrase", "retrieval" or "clustering". ``main`` names the metric to
    quote; shares are x100, and undefined metrics are NaN. ``counts`` are the sizes of the data.
    """

    name: str
    kind: str
    main: str
    metrics: dict[str, float]
    counts: dict[str, int]
    protocol: str


@dataclass(frozen=True)
class Geometry:
    """The shape of the embedding space, measured on the sentences of ``source``.

    ``alignment`` is over ``positives`` pairs (NaN if there are none), all other measures are over
    ``sentences`` distinct sentences; see :mod:`simcse_kit.metrics.geometry`, and for ``iso_score``
    and ``spectrum`` (shares of the variance along the principal axes, largest first)
    :mod:`simcse_kit.metrics.geometry`. ``tolerance`` is the mean cosine of the positive pairs (Wang
    and Liu 2021, arXiv 2012.09740, equation 14, with graded positives in place of classes).
    ``hubness`` and ``neighbours_found`` (the share of positives among the 10 nearest sentences):
    :mod:`simcse_kit.evaluation.neighbours`.
    """

    alignment: float
    uniformity: float
    mean_cosine: float
    dimension_std: float
    effective_rank: float
    positives: int
    sentences: int
    source: str
    iso_score: float = math.nan
    tolerance: float = math.nan
    hubness: float = math.nan
    neighbours_found: float = math.nan
    spectrum: tuple[float, ...] = ()


@dataclass(frozen=True)
class Intervals:
    """Intervals of each task's Spearman, and of the seven-task mean as ``Avg.``.

    They are BCa intervals at the confidence ``level``, from a bootstrap stratified by subset.
    """

    scores: dict[str, Interval]
    level: float
    resamples: int
    seed: int


@dataclass(frozen=True)
class SentenceMap:
    """Sentences on the first two principal axes of their unit vectors.

    ``sentences`` is a sample of the distinct sentences of ``source``, at equal steps, and
    ``shares`` are the shares of its variance along the two axes. ``neighbours`` are the nearest of
    all distinct sentences, with their cosines.
    """

    sentences: tuple[str, ...]
    points: tuple[tuple[float, float], ...]
    shares: tuple[float, float]
    neighbours: tuple[tuple[tuple[str, float], ...], ...]
    source: str


@dataclass(frozen=True)
class Miss:
    """A pair that the model ranks far from its rank by human score.

    ``places`` are the ranks of the gold score and of the cosine among the pairs of the task,
    scaled from 0 (least similar) to 1; ties have average ranks.
    """

    task: str
    sentence1: str
    sentence2: str
    gold: float
    cosine: float
    places: tuple[float, float]


@dataclass(frozen=True)
class Audit:
    """The data of a task.

    ``repeated`` counts pairs that occur earlier in the task, in either order; ``words`` are the
    median and largest number of words in a sentence; ``tokens`` is what the encoder's tokenizer
    loses (None if it is not known); ``fingerprint`` is the SHA-256 of sentences and scores.
    """

    task: str
    pairs: int
    sentences: int
    repeated: int
    words: tuple[int, int]
    tokens: TokenCounts | None
    fingerprint: str

    @property
    def cut(self) -> int | None:
        """Number of distinct sentences that the encoder truncates; None if it is not known."""
        return None if self.tokens is None else self.tokens.cut


@dataclass(frozen=True)
class Exhibit:
    """What a report shows besides scores: a map, the worst pairs, and the data of each task.

    ``weights`` is the fingerprint of the model's files; None if the model has no folder.
    """

    map: SentenceMap | None
    misses: tuple[Miss, ...]
    audit: tuple[Audit, ...]
    weights: str | None

    def to_json(self) -> dict[str, Any]:
        """Return plain lists, dicts and numbers."""
        audits = [
            asdict(replace(task, tokens=None))
            | {"cut": task.cut, "tokens": None if task.tokens is None else task.tokens.to_json()}
            for task in self.audit
        ]
        return asdict(replace(self, audit=())) | {"audit": audits}
