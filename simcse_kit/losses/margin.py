"""Margin losses over in-batch and hard negatives: triplet, ranking, and the plain difference.

The negatives of an anchor are those of :func:`~simcse_kit.losses.info_nce.info_nce`. Temperature
and α are not used. An anchor without negatives adds 0. Memory is a few (B, B + B·k) matrices.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from simcse_kit.errors import ConfigError
from simcse_kit.losses.contrastive_batch import ContrastiveBatch, check_margin
from simcse_kit.losses.logits import candidate_cosines
from simcse_kit.losses.similarity import safe_sqrt

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
    r"""Compute the triplet loss: the mean over triplets of

    .. math:: \max(0, m + d(h_i, h_i^+) - d(h_i, h_n))

    Section 3.1 of arXiv 1503.03832 (FaceNet), with squared distances on the unit sphere and
    m = 0.2. ``mining`` selects the negatives n that form a triplet with anchor i:

    - ``given``: its own hard negatives from the data.
    - ``all``: every negative. The mean is over the triplets with a loss above 0, like "batch all"
      with the mean of non-zero terms in arXiv 1703.07737.
    - ``hard``: the closest negative ("batch hard", arXiv 1703.07737).
    - ``semi-hard``: the closest negative that is farther away than the positive, or the farthest
      negative if there is none (arXiv 1503.03832, section 3.2, does not define the second case).

    Args:
        batch: The embeddings.
        margin: The margin m > 0.
        mining: The selection of negatives. It has no gradient.
        distance: The distance d of unit vectors, see :func:`distance_of`.

    Raises:
        ConfigError: m ≤ 0, an unknown mining or distance, or ``given`` without hard negatives.

    Examples:
        >>> batch = ContrastiveBatch(torch.eye(2), torch.eye(2), -torch.eye(2).unsqueeze(1))
        >>> triplet(batch, margin=2.5, mining="hard")  # squared distance 2 to the other row
        tensor(0.5000)
    """
    check_margin(margin)
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
                "triplet: mining 'given' needs hard negatives and the data has none; "
                "give triplets, or mine in the batch with 'hard', 'semi-hard' or 'all'"
            )
        own = torch.eye(batch.rows, dtype=torch.bool, device=cosines.device)
        own_hard = torch.zeros_like(negatives)
        hard = slice(batch.rows, batch.rows * (1 + batch.negatives))
        own_hard[:, hard] = own.repeat_interleave(batch.negatives, dim=1)
        negatives = negatives & own_hard
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
    r"""Compute the margin ranking loss: the mean over anchors i and their negatives n of

    .. math:: \max(0, m - \cos(h_i, h_i^+) + \cos(h_i, h_n))

    The pairwise ranking loss of arXiv 1411.2539 in one direction. A mean replaces
    the sum, so that the scale does not depend on the batch size.

    Args:
        batch: The embeddings.
        margin: The margin m > 0.

    Raises:
        ConfigError: m ≤ 0.

    Examples:
        >>> ranking(ContrastiveBatch(torch.eye(2), torch.eye(2)), margin=1.5)
        tensor(0.5000)
    """
    check_margin(margin)
    cosines, negatives = candidate_cosines(batch)
    gaps = margin - cosines.diagonal().unsqueeze(1) + cosines.masked_fill(~negatives, 0)
    return _mean_of_rows(gaps.clamp_min(0), negatives)


def simple(batch: ContrastiveBatch, *, weight: float | None = None) -> Tensor:
    r"""Compute the difference of cosines, without a softmax: the mean over anchors of

    .. math:: -\cos(h_i, h_i^+) + \lambda \sum_n \cos(h_i, h_n)

    All negatives have the same weight, whether they are close or far.

    Args:
        batch: The embeddings.
        weight: The weight λ ≥ 0. By default, one over the number of the anchor's negatives, so
            that the second term is their mean cosine.

    Raises:
        ConfigError: λ < 0.

    Examples:
        >>> simple(ContrastiveBatch(torch.eye(2), torch.eye(2)))
        tensor(-1.)
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
    """Turn the cosines of unit vectors into distances.

    Args:
        cosines: Any shape.
        distance: ``cosine`` (1 - cos), ``squared`` (2 - 2 cos), or ``euclidean``, the root of
            ``squared``, whose gradient is set to 0 at distance 0.

    Raises:
        ConfigError: An unknown distance.

    Examples:
        >>> distance_of(torch.tensor([1.0, 0.0, -1.0]), "squared")
        tensor([0., 2., 4.])
    """
    if distance == "cosine":
        return 1 - cosines
    squared = (2 - 2 * cosines).clamp_min(0)
    if distance == "squared":
        return squared
    if distance != "euclidean":
        raise ConfigError(f"distance is {distance!r}; use 'cosine', 'squared' or 'euclidean'")
    return safe_sqrt(squared)


def _hinges(positive: Tensor, negative: Tensor, margin: float, distance: Distance) -> Tensor:
    gaps = distance_of(positive, distance) - distance_of(negative, distance)
    return (margin + gaps).clamp_min(0)


def _farthest(scores: Tensor, negatives: Tensor) -> Tensor:
    """Mark the farthest negative of each row: bool of the shape of ``negatives``."""
    last = scores.masked_fill(~negatives, torch.inf).argmin(dim=1, keepdim=True)
    return torch.zeros_like(negatives).scatter_(1, last, True)


def _mean_of_rows(terms: Tensor, wanted: Tensor) -> Tensor:
    """Average the wanted terms of each row (0 if there are none), then the rows."""
    sums = terms.masked_fill(~wanted, 0).sum(dim=1)
    return (sums / wanted.sum(dim=1).clamp_min(1)).mean()
