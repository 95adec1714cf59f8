"""Losses that ask the positive to beat the negatives by a margin, and the plain difference.

All take a :class:`~simcse_kit.losses.contrast.ContrastiveBatch`: the negatives of an anchor are
the positives of the other rows and the hard negatives of all rows, without what is absent, what is
the same text as the anchor or its positive, and what a guide rejects. Temperature and α are not
used.
An anchor without any negative adds 0. Memory is that of a few (B, B + B·k) matrices.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from simcse_kit.errors import ConfigError
from simcse_kit.losses.contrast import ContrastiveBatch
from simcse_kit.losses.logits import candidate_cosines

__all__ = ["Distance", "Mining", "distance_of", "ranking", "simple", "triplet"]

Distance = Literal["cosine", "squared", "euclidean"]
Mining = Literal["given", "all", "hard", "semi-hard"]


def triplet(
    batch: ContrastiveBatch,
    *,
    margin: float = 0.2,
    mining: Mining = "hard",
    distance: Distance = "squared",
) -> Tensor:
    r"""The mean over triplets of

    .. math:: \max(0, m + d(h_i, h_i^+) - d(h_i, h_n))

    Section 3.1 of arXiv 1503.03832 (FaceNet), which has squared distances on the unit sphere and
    m = 0.2. Which negatives n make a triplet with anchor i:

    - ``given``: its own hard negatives, those of the data; the mean is over all of them.
    - ``all``: every negative; the mean is over the triplets that are not yet satisfied, as the
      "batch all" of arXiv 1703.07737 with its average of non-zero terms.
    - ``hard``: the closest, one an anchor ("batch hard", arXiv 1703.07737).
    - ``semi-hard``: the closest of those farther than the positive; where there is none, the
      farthest. One an anchor (arXiv 1503.03832, section 3.2; what to do without a semi-hard
      negative it leaves open).

    Args:
        batch: anchors, positives and hard negatives.
        margin: m > 0.
        mining: see above. The choice itself has no gradient.
        distance: of unit vectors, see :func:`distance_of`.

    Returns:
        A scalar, float32 or wider.

    Raises:
        ConfigError: m ≤ 0, an unknown mining or distance, or ``given`` without hard negatives.
    """
    _check_margin(margin)
    cosines, negatives = candidate_cosines(batch)
    positive = cosines.diagonal()
    if mining in ("hard", "semi-hard"):
        scores = cosines.detach()
        fit = negatives
        if mining == "semi-hard":
            farther = negatives & (scores < positive.detach().unsqueeze(1))
            fit = torch.where(
                farther.any(dim=1, keepdim=True), farther, _farthest(scores, negatives)
            )
        chosen = scores.masked_fill(~fit, -torch.inf).argmax(dim=1)
        negative, there = cosines.gather(1, chosen.unsqueeze(1)).squeeze(1), negatives.any(dim=1)
        terms = _hinges(positive, negative.masked_fill(~there, 0), margin, distance)
        return torch.where(there, terms, 0).mean()
    if mining == "given":
        if not batch.negatives:
            raise ConfigError(
                "triplet: mining 'given' takes the hard negatives of the data and there are none; "
                "give triplets, or mine in the batch with 'hard', 'semi-hard' or 'all'"
            )
        own = torch.eye(batch.rows, dtype=torch.bool, device=cosines.device)
        negatives = negatives.clone()
        negatives[:, : batch.rows] = False
        negatives[:, batch.rows :] &= own.repeat_interleave(batch.negatives, dim=1)
    elif mining != "all":
        raise ConfigError(
            f"triplet: mining is {mining!r}; use 'given', 'all', 'hard' or 'semi-hard'"
        )
    terms = _hinges(
        positive.unsqueeze(1), cosines.masked_fill(~negatives, 0), margin, distance
    ).masked_fill(~negatives, 0)
    count = (negatives if mining == "given" else terms.detach() > 0).sum()
    return terms.sum() / count.clamp_min(1)


def ranking(batch: ContrastiveBatch, *, margin: float = 0.2) -> Tensor:
    r"""Margin ranking, or hinge: the mean over anchors i and over the negatives n of each of

    .. math:: \max(0, m - \cos(h_i, h_i^+) + \cos(h_i, h_n))

    The pairwise ranking loss of arXiv 1411.2539 in one direction, with a mean in place of the sum,
    so that its scale does not depend on the batch.

    Args:
        batch: anchors, positives and hard negatives.
        margin: m > 0.

    Returns:
        A scalar, float32 or wider.

    Raises:
        ConfigError: m ≤ 0.
    """
    _check_margin(margin)
    cosines, negatives = candidate_cosines(batch)
    gaps = margin - cosines.diagonal().unsqueeze(1) + cosines.masked_fill(~negatives, 0)
    return _mean_of_rows(gaps.clamp_min(0), negatives)


def simple(batch: ContrastiveBatch, *, weight: float | None = None) -> Tensor:
    r"""The plain difference, without a softmax: the mean over anchors of

    .. math:: -\cos(h_i, h_i^+) + \lambda \sum_n \cos(h_i, h_n)

    Every negative is pushed alike, the far as the near.

    Args:
        batch: anchors, positives and hard negatives.
        weight: λ ≥ 0; None is one over the number of the anchor's negatives, so that the second
            term is their mean cosine.

    Returns:
        A scalar, float32 or wider.

    Raises:
        ConfigError: λ < 0.
    """
    if weight is not None and not (math.isfinite(weight) and weight >= 0):
        raise ConfigError(f"simple: weight must be 0 or more, got {weight}")
    cosines, negatives = candidate_cosines(batch)
    pushed = cosines.masked_fill(~negatives, 0)
    there = negatives.any(dim=1)
    pull = torch.where(there, cosines.diagonal(), 0).mean()
    if weight is None:
        return _mean_of_rows(pushed, negatives) - pull
    return weight * pushed.sum(dim=1).mean() - pull


def distance_of(cosines: Tensor, distance: Distance) -> Tensor:
    """Distance of unit vectors with these cosines.

    Args:
        cosines: any shape.
        distance: ``cosine`` 1 - cos, ``squared`` 2 - 2 cos, or ``euclidean``, its root, which has
            a zero gradient where it is 0.

    Raises:
        ConfigError: an unknown distance.
    """
    if distance == "cosine":
        return 1 - cosines
    squared = (2 - 2 * cosines).clamp_min(0)
    if distance == "squared":
        return squared
    if distance != "euclidean":
        raise ConfigError(f"distance is {distance!r}; use 'cosine', 'squared' or 'euclidean'")
    same = squared <= 0
    return torch.where(same, 0, squared.masked_fill(same, 1).sqrt())


def _hinges(positive: Tensor, negative: Tensor, margin: float, distance: Distance) -> Tensor:
    gaps = distance_of(positive, distance) - distance_of(negative, distance)
    return (margin + gaps).clamp_min(0)


def _farthest(scores: Tensor, negatives: Tensor) -> Tensor:
    """Bool of the shape of ``negatives``, True at one negative of each row, the farthest."""
    last = scores.masked_fill(~negatives, torch.inf).argmin(dim=1, keepdim=True)
    return torch.zeros_like(negatives).scatter_(1, last, True)


def _mean_of_rows(terms: Tensor, wanted: Tensor) -> Tensor:
    """The mean over rows of the mean over the wanted terms of a row, 0 where there are none."""
    sums = terms.masked_fill(~wanted, 0).sum(dim=1)
    return (sums / wanted.sum(dim=1).clamp_min(1)).mean()


def _check_margin(margin: float) -> None:
    if not (math.isfinite(margin) and margin > 0):
        raise ConfigError(f"margin must be above 0, got {margin}")
