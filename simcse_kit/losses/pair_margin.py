"""The margin loss of labelled pairs (Hadsell, Chopra & LeCun 2006)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from simcse_kit.errors import ConfigError
from simcse_kit.losses.contrastive_batch import check_margin
from simcse_kit.losses.similarity import full_precision, safe_sqrt, unit_rows

__all__ = ["PairDistance", "margin_contrastive", "pair_distance"]

PairDistance = Literal["euclidean", "cosine"]


def margin_contrastive(
    distances: Tensor, labels: Tensor, *, margin: float = 1.0, squared: bool = False
) -> Tensor:
    r"""Pull similar pairs together and push dissimilar pairs apart up to a margin.

    The mean over pairs, with **Y = 1 for a dissimilar pair** and 0 for a similar one, of

    .. math:: L = (1-Y)\, d^2 + Y \max(0, m - d)^2

    Equation 4 of Hadsell, Chopra & LeCun 2006, "Dimensionality Reduction by Learning an Invariant
    Mapping", without its factor ½. With ``squared``, the hinge applies to the squared distance, so
    that the gradient vanishes with d instead of being largest for the closest pairs:

    .. math:: L = (1-Y)\, d^2 + Y \max(0, m - d^2)

    Args:
        distances: (B,), d ≥ 0, see :func:`pair_distance`.
        labels: (B,), Y, 0 or 1 of any type; the values are not checked.
        margin: The margin m > 0, compared with squared distances if ``squared`` is set.
        squared: Use the second form.

    Raises:
        ConfigError: The shapes do not match, there is no pair, or m ≤ 0.

    Examples:
        >>> margin_contrastive(torch.tensor([0.0, 0.5]), torch.tensor([0, 1]))
        tensor(0.1250)
    """
    if distances.dim() != 1 or distances.shape != labels.shape or not len(labels):
        raise ConfigError(
            "distances and labels must both have shape (B,) with B of 1 or more, got "
            f"{tuple(distances.shape)} and {tuple(labels.shape)}"
        )
    check_margin(margin)
    wide = distances.to(torch.promote_types(distances.dtype, torch.float32))
    different = labels.to(wide.dtype)
    if squared:
        hinge = (margin - wide.square()).clamp_min(0)
    else:
        hinge = (margin - wide).clamp_min(0).square()
    return ((1 - different) * wide.square() + different * hinge).mean()


def pair_distance(first: Tensor, second: Tensor, metric: PairDistance = "euclidean") -> Tensor:
    """Compute the distance of every pair of rows, scaled to length 1.

    Args:
        first: (B, d).
        second: (B, d).
        metric: ``euclidean``, 0 to 2, with gradient 0 at distance 0; or ``cosine``, 1 - cos, also
            0 to 2, which is half the square of the Euclidean distance.

    Returns:
        (B,), float32 or wider.

    Raises:
        ConfigError: The shapes do not match, or the metric is unknown.

    Examples:
        >>> pair_distance(torch.eye(2), torch.eye(2).flip(0), "cosine")
        tensor([1., 1.])
    """
    if first.dim() != 2 or first.shape != second.shape:
        raise ConfigError(
            "the two sides must both have shape (B, d), "
            f"got {tuple(first.shape)} and {tuple(second.shape)}"
        )
    if metric not in ("euclidean", "cosine"):
        raise ConfigError(f"metric is {metric!r}; use 'euclidean' or 'cosine'")
    with full_precision(first.device):
        # From the difference, because 1 - cos loses digits for close vectors.
        squared = (unit_rows(first) - unit_rows(second)).square().sum(dim=1)
    return squared / 2 if metric == "cosine" else safe_sqrt(squared)
