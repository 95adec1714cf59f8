"""Alignment, uniformity and collapse signs of an encoder on a set of graded pairs."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from simcse_kit.evaluation.neighbours import NEIGHBOURS, hubness, nearest, share_found
from simcse_kit.evaluation.pair_set import PairSet
from simcse_kit.evaluation.results import Geometry
from simcse_kit.losses.similarity import unit_rows
from simcse_kit.metrics import geometry as hypersphere
from simcse_kit.metrics.spectrum import iso_score, variance_spectrum

__all__ = ["MOST_SENTENCES", "alignment_uniformity", "geometry", "positives"]

logger = logging.getLogger(__name__)

MOST_SENTENCES = 20_000
"""Distinct sentences that the shape of an embedding space is measured on."""

Encode = Callable[[list[str]], np.ndarray]


def positives(pairs: PairSet) -> np.ndarray:
    """Which pairs count as positives: (n,) bool.

    Those graded above 4 on the 0-5 scale of STS-B (arXiv 2104.08821, section 2), which is above
    80 % of the highest possible score on any other scale.
    """
    # 0.8 * 5 is exactly 4 in binary, so the published threshold is kept
    return np.asarray(pairs.gold > 0.8 * pairs.scale[1])


def alignment_uniformity(encode: Encode, pairs: PairSet) -> tuple[float, float]:
    """Alignment over the positives (NaN where there is none), uniformity over distinct sentences.

    Args:
        encode: n sentences -> (n, d) vectors, of any length; they are normalised.
        pairs: see :func:`geometry`.

    Raises:
        ConfigError: fewer than 2 distinct sentences, or vectors that are zero or not finite.
    """
    with torch.no_grad():
        cloud = _tensor(encode(pairs.sentences()))
        return _alignment(encode, pairs), float(hypersphere.uniformity(cloud))


def geometry(encode: Encode, pairs: PairSet, source: str, *, progress: bool = False) -> Geometry:
    """Measure the embedding cloud.

    The work grows with the square of the sentences. Of a set with more than 20,000 distinct ones
    (STS-B has 15,487) pairs are drawn that hold about as many, always the same; ``source`` says so.

    Alignment is taken over the :func:`positives`; uniformity, mean cosine, dimension std and
    effective rank over the distinct sentences of the set, on vectors scaled to length 1.

    Args:
        encode: n sentences -> (n, d) vectors.
        pairs: the graded pairs. In the papers all of STS-B; by default here its test split.
        source: what ``pairs`` is, for the reader; the counts and the threshold are appended.
        progress: a bar on stderr, after two seconds, on a terminal.

    Raises:
        ConfigError: fewer than 2 distinct sentences, or vectors that are zero or not finite.
    """
    whole = len(pairs)
    pairs = _drawn(pairs)
    if len(pairs) < whole:
        source = f"{source} ({len(pairs):,} of {whole:,} pairs, drawn)"
    sentences = pairs.sentences()
    chosen = int(positives(pairs).sum())
    threshold = f"gold > {0.8 * pairs.scale[1]:g}"
    vectors = np.asarray(encode(sentences))
    places = None
    if len(sentences) > 1:
        places = nearest(
            vectors.astype(np.float32), min(NEIGHBOURS, len(sentences) - 1), progress=progress
        )
    number = {sentence: row for row, sentence in enumerate(sentences)}
    at = np.flatnonzero(positives(pairs))
    first, second = (
        np.array([number[side[index]] for index in at], dtype=np.int64)
        for side in (pairs.sentences1, pairs.sentences2)
    )
    with torch.no_grad():
        cloud = _tensor(vectors)
        near = _alignment(encode, pairs)
        variances = variance_spectrum(unit_rows(cloud))
        variance = float(variances.sum())
        return Geometry(
            alignment=near,
            uniformity=float(hypersphere.uniformity(cloud)),
            mean_cosine=float(hypersphere.mean_cosine(cloud)),
            dimension_std=float(hypersphere.dimension_std(cloud)),
            effective_rank=float(hypersphere.effective_rank(cloud)),
            positives=chosen,
            sentences=len(sentences),
            source=f"{source}: {chosen} positive pairs ({threshold}), "
            f"{len(sentences)} distinct sentences",
            iso_score=float(iso_score(variances)) if len(variances) > 1 else math.nan,
            # Of unit vectors: half the squared distance is what the cosine lacks of 1.
            tolerance=1 - near / 2,
            hubness=math.nan if places is None else hubness(places),
            neighbours_found=math.nan if places is None else share_found(places, first, second),
            spectrum=tuple((variances / variance).tolist()) if variance > 0 else (),
        )


def _drawn(pairs: PairSet) -> PairSet:
    """The pairs, or as many of them as hold :data:`MOST_SENTENCES` distinct sentences."""
    if len(pairs.sentences()) <= MOST_SENTENCES:
        return pairs
    known: set[str] = set()
    rows = []
    for row in np.random.default_rng(0).permutation(len(pairs)).tolist():
        known.update((pairs.sentences1[row], pairs.sentences2[row]))
        if len(known) > MOST_SENTENCES:
            break
        rows.append(row)
    rows.sort()
    first, second = ([side[row] for row in rows] for side in (pairs.sentences1, pairs.sentences2))
    return PairSet(pairs.name, first, second, pairs.gold[rows], pairs.scale)


def _alignment(encode: Encode, pairs: PairSet) -> float:
    chosen = np.flatnonzero(positives(pairs))
    if not len(chosen):
        logger.warning(
            "alignment is undefined (NaN): no pair of %s is graded above %g",
            pairs.name,
            0.8 * pairs.scale[1],
        )
        return math.nan
    left, right = (
        _tensor(encode([side[index] for index in chosen]))
        for side in (pairs.sentences1, pairs.sentences2)
    )
    return float(hypersphere.alignment(left, right))


def _tensor(vectors: np.ndarray | Sequence[Sequence[float]]) -> torch.Tensor:
    return torch.as_tensor(np.ascontiguousarray(vectors))
