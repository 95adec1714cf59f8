"""Details of an evaluation for its report: sentence map, neighbours, worst pairs, data audit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.folder.fingerprint import fingerprint
from simcse_kit.encoder.token_counts import count_tokens
from simcse_kit.evaluation.embed import Embeddings, Encoder, unit_rows
from simcse_kit.evaluation.neighbours import nearest
from simcse_kit.evaluation.pair_set import PairSet, concatenate
from simcse_kit.evaluation.records import Audit, Exhibit, Miss, SentenceMap, TaskResult
from simcse_kit.evaluation.statistics.error_analysis import places

__all__ = ["exhibit", "sentence_map", "worst_pairs"]

# Sentences of a map, nearest sentences of each, and worst pairs.
_POINTS = 400
_NEAR = 3
_MISSES = 10


def exhibit(
    encoder: Encoder,
    vectors: Embeddings,
    tasks: Mapping[str, list[PairSet]],
    results: Mapping[str, TaskResult],
    pairs: PairSet | None,
    source: str,
) -> Exhibit:
    """Gather the details of an evaluation.

    The map shows the sentences of ``pairs``, whose name is ``source``; None gives no map.
    """
    folder = getattr(encoder, "source", None)
    return Exhibit(
        None if pairs is None else sentence_map(vectors, pairs.sentences(), source),
        worst_pairs(tasks, results),
        tuple(_audit(name, concatenate(sets, name), encoder) for name, sets in tasks.items()),
        fingerprint(folder) if isinstance(folder, Path) else None,
    )


def sentence_map(vectors: Embeddings, sentences: Sequence[str], source: str) -> SentenceMap | None:
    """Place sentences on their first two principal axes; None for fewer than 3 sentences."""
    if len(sentences) < 3:
        return None
    sample = np.unique(np.linspace(0, len(sentences) - 1, _POINTS).round().astype(int))
    cloud = vectors(sentences)
    unit = unit_rows(cloud)
    centred = unit[sample].astype(np.float64)
    centred -= centred.mean(axis=0)
    left, singular, axes = np.linalg.svd(centred, full_matrices=False)
    # The sign of an axis is arbitrary; its largest coefficient decides, so that runs are comparable
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])
    points = (left * singular * signs)[:, :2]
    if points.shape[1] < 2:
        points = np.column_stack([points, np.zeros(len(points))])
    whole = float((singular**2).sum())
    first, second = (
        float(value**2) / whole if whole > 0 else 0.0 for value in [*singular, 0.0][:2]
    )
    others = nearest(cloud, min(_NEAR, len(sentences) - 1), rows=sample)
    near = tuple(
        tuple((sentences[other], float(unit[row] @ unit[other])) for other in row_others)
        for row, row_others in zip(sample, others, strict=True)
    )
    return SentenceMap(
        tuple(sentences[row] for row in sample),
        tuple((float(x), float(y)) for x, y in points),
        (first, second),
        near,
        source,
    )


def worst_pairs(
    tasks: Mapping[str, list[PairSet]], results: Mapping[str, TaskResult], most: int = _MISSES
) -> tuple[Miss, ...]:
    """Find the pairs whose ranks by cosine and by gold score differ most, worst first.

    Tasks with undefined cosines are left out.
    """
    found = []
    for name, sets in tasks.items():
        result = results[name]
        if len(result.gold) < 2 or not np.isfinite(result.cosines).all():
            continue
        gold, cosine = places(result.gold), places(result.cosines)
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
