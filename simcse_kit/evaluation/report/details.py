"""What a report shows of the sentences themselves: a map, neighbours, the worst pairs, an audit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.token_counts import TokenCounts, count_tokens
from simcse_kit.evaluation.embed import Embeddings, Encoder, unit_rows
from simcse_kit.evaluation.neighbours import nearest
from simcse_kit.evaluation.pair_set import PairSet, concatenate
from simcse_kit.evaluation.results import TaskResult

__all__ = ["Audit", "Exhibit", "Miss", "SentenceMap", "exhibit", "sentence_map", "worst_pairs"]

POINTS = 400
NEAR = 3
MISSES = 10


@dataclass(frozen=True)
class SentenceMap:
    """Sentences on the first two principal axes of their unit vectors.

    Attributes:
        sentences: n of them, evenly from the distinct sentences of ``source``.
        points: (x, y) of each.
        shares: of the variance of these n along the two axes.
        neighbours: of each, the nearest of all distinct sentences, with their cosines.
        source: where they are from.
    """

    sentences: tuple[str, ...]
    points: tuple[tuple[float, float], ...]
    shares: tuple[float, float]
    neighbours: tuple[tuple[tuple[str, float], ...], ...]
    source: str


@dataclass(frozen=True)
class Miss:
    """A pair that the model places far from where people do.

    ``places`` are those of the gold score and of the cosine among the pairs of the task, from 0
    (least alike) to 1; average ranks for ties.
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

    ``repeated`` counts pairs that stand there before, in either order; ``words`` are the median and
    the largest number of words of a sentence; ``tokens`` says what the encoder's tokenizer loses
    (None where that is not known); ``fingerprint`` is of sentences and scores (SHA-256).
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
        """Distinct sentences that the encoder cuts; None where that is not known."""
        return None if self.tokens is None else self.tokens.cut


@dataclass(frozen=True)
class Exhibit:
    """See :func:`exhibit`; ``weights`` is the SHA-256 of the model's weights, where it has any."""

    map: SentenceMap | None
    misses: tuple[Miss, ...]
    audit: tuple[Audit, ...]
    weights: str | None

    def to_json(self) -> dict[str, Any]:
        """Plain lists, dicts and numbers."""
        audits = [
            asdict(replace(task, tokens=None))
            | {"cut": task.cut, "tokens": None if task.tokens is None else task.tokens.to_json()}
            for task in self.audit
        ]
        return asdict(replace(self, audit=())) | {"audit": audits}


def exhibit(
    encoder: Encoder,
    vectors: Embeddings,
    tasks: Mapping[str, list[PairSet]],
    results: Mapping[str, TaskResult],
    pairs: PairSet | None,
    source: str,
) -> Exhibit:
    """Gather what a report shows.

    Args:
        encoder: for the lengths that it takes and the fingerprint of its weights.
        vectors: of all sentences below.
        tasks: the subsets of every task.
        results: the scores of ``tasks``.
        pairs: whose sentences the map is of; None for no map.
        source: what those are.
    """
    return Exhibit(
        None if pairs is None else sentence_map(vectors, pairs.sentences(), source),
        worst_pairs(tasks, results),
        tuple(_audit(name, concatenate(sets, name), encoder) for name, sets in tasks.items()),
        _weights(encoder),
    )


def sentence_map(vectors: Embeddings, sentences: Sequence[str], source: str) -> SentenceMap | None:
    """The map; None of fewer than 3 sentences."""
    if len(sentences) < 3:
        return None
    shown = np.unique(np.linspace(0, len(sentences) - 1, POINTS).round().astype(int))
    cloud = vectors(sentences)
    unit = unit_rows(cloud)
    some = unit[shown].astype(np.float64)
    centred = some - some.mean(axis=0)
    left, singular, axes = np.linalg.svd(centred, full_matrices=False)
    # An axis may point either way; its largest coefficient decides, so that runs can be compared.
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])
    points = (left * singular * signs)[:, :2]
    if points.shape[1] < 2:
        points = np.column_stack([points, np.zeros(len(points))])
    whole = float((singular**2).sum())
    shares = [float(value**2) / whole if whole > 0 else 0.0 for value in [*singular, 0.0][:2]]
    places = nearest(cloud, min(NEAR, len(sentences) - 1), rows=shown)
    near = tuple(
        tuple((sentences[other], float(unit[row] @ unit[other])) for other in others)
        for row, others in zip(shown, places, strict=True)
    )
    return SentenceMap(
        tuple(sentences[row] for row in shown),
        tuple((float(x), float(y)) for x, y in points),
        (shares[0], shares[1]),
        near,
        source,
    )


def worst_pairs(
    tasks: Mapping[str, list[PairSet]], results: Mapping[str, TaskResult], most: int = MISSES
) -> tuple[Miss, ...]:
    """The pairs whose places by cosine and by gold score are farthest apart, those first."""
    found = []
    for name, sets in tasks.items():
        result = results[name]
        if len(result.gold) < 2 or not np.isfinite(result.cosines).all():
            continue
        gold, cosine = (
            (rankdata(side) - 1) / (len(side) - 1) for side in (result.gold, result.cosines)
        )
        whole = concatenate(sets, name)
        for row in np.argsort(-np.abs(gold - cosine), kind="stable")[:most]:
            found.append(
                Miss(
                    name,
                    whole.sentences1[row],
                    whole.sentences2[row],
                    float(result.gold[row]),
                    float(result.cosines[row]),
                    (float(gold[row]), float(cosine[row])),
                )
            )
    found.sort(key=lambda miss: -abs(miss.places[0] - miss.places[1]))
    return tuple(found[:most])


def _audit(name: str, pairs: PairSet, encoder: Encoder) -> Audit:
    sentences = pairs.sentences()
    words = np.array([len(text.split()) for text in sentences])
    both = zip(pairs.sentences1, pairs.sentences2, strict=True)
    distinct = {tuple(sorted(pair)) for pair in both}
    digest = hashlib.sha256()
    for left, right, gold in zip(pairs.sentences1, pairs.sentences2, pairs.gold, strict=True):
        digest.update(f"{left}\t{right}\t{float(gold)!r}\n".encode("utf-8", "surrogatepass"))
    return Audit(
        name,
        len(pairs),
        len(sentences),
        len(pairs) - len(distinct),
        (int(np.median(words)), int(words.max())),
        count_tokens(encoder, sentences) if isinstance(encoder, SentenceEncoder) else None,
        digest.hexdigest(),
    )


def _weights(encoder: Encoder) -> str | None:
    folder = getattr(encoder, "source", None)
    if not isinstance(folder, Path):
        return None
    digest, found = hashlib.sha256(), False
    for pattern in ("model*.safetensors", "*.onnx", "*.bin", "*_Dense/*.safetensors"):
        for path in sorted(folder.glob(pattern)):
            if not path.is_file():  # a pipe would be waited for without end
                continue
            found = True
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest() if found else None
