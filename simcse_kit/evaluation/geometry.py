"""Geometry of an embedding space, measured on graded pairs."""

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
from simcse_kit.metrics.geometry import iso_score, variance_spectrum
from simcse_kit.utils.arrays import on_host

__all__ = ["MOST_SENTENCES", "alignment_uniformity", "geometry", "positives"]

logger = logging.getLogger(__name__)

MOST_SENTENCES = 20_000
"""Largest number of distinct sentences to measure geometry on."""

Encode = Callable[[list[str]], np.ndarray]


def positives(pairs: PairSet) -> np.ndarray:
    """Select the positive pairs: (n,) bool.

    On the 0-5 scale of STS-B positive pairs have a grade above 4 (arXiv 2104.08821, section 2); on
    other scales a grade above 80 % of the highest possible one.
    """
    # 0.8 * 5 is exactly 4 in binary.
    return np.asarray(pairs.gold > 0.8 * pairs.scale[1])


def alignment_uniformity(encode: Encode, pairs: PairSet) -> tuple[float, float]:
    """Measure alignment over the positives (NaN without any) and uniformity over the sentences.

    Args:
        encode: function from n sentences to (n, d) vectors, which are normalized here.
        pairs: graded pairs.

    Raises:
        ConfigError: there are fewer than 2 distinct sentences, or a vector is zero or not finite.
    """
    with torch.no_grad():
        cloud = _tensor(encode(pairs.sentences()))
        return _alignment(encode, pairs), float(hypersphere.uniformity(cloud))


def geometry(encode: Encode, pairs: PairSet, source: str, *, progress: bool = False) -> Geometry:
    """Measure the geometry of an embedding space.

    Alignment uses the :func:`positives`; all other measures use the distinct sentences, with
    vectors of length 1. The cost is quadratic in the number of sentences: from a set with more than
    20,000 distinct ones (STS-B has 15,487), a fixed random sample of pairs is used, and ``source``
    of the result says so.

    Args:
        encode: function from n sentences to (n, d) vectors.
        pairs: graded pairs. The papers use all of STS-B; the default of `simcse eval` is its test
            split.
        source: description of the pairs, to which counts and threshold are appended.
        progress: show a progress bar.

    Raises:
        ConfigError: there are fewer than 2 distinct sentences, or a vector is zero or not finite.
    """
    whole = len(pairs)
    pairs = _drawn(pairs)
    if len(pairs) < whole:
        source = f"{source} ({len(pairs):,} of {whole:,} pairs, drawn)"
    sentences = pairs.sentences()
    chosen = int(positives(pairs).sum())
    threshold = f"gold > {0.8 * pairs.scale[1]:g}"
    vectors = np.asarray(on_host(encode(sentences)))
    places = None
    if len(sentences) > 1:
        places = nearest(
            vectors.astype(np.float32),
            min(NEIGHBOURS, len(sentences) - 1),
            progress=progress,
            gpu=getattr(encode, "gpu", None),
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
            # For unit vectors the cosine is 1 less half the squared distance.
            tolerance=1 - near / 2,
            hubness=math.nan if places is None else hubness(places),
            neighbours_found=math.nan if places is None else share_found(places, first, second),
            spectrum=tuple((variances / variance).tolist()) if variance > 0 else (),
        )


def _drawn(pairs: PairSet) -> PairSet:
    """Sample pairs with at most :data:`MOST_SENTENCES` distinct sentences, if there are more."""
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
            "alignment is undefined (NaN): no pair of %s has a grade above %g",
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
    return torch.as_tensor(np.ascontiguousarray(on_host(vectors)))
