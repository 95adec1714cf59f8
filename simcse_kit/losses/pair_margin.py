"""Margin losses of labelled pairs (Hadsell, Chopra & LeCun 2006)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from simcse_kit.errors import ConfigError
from simcse_kit.losses.similarity import full_precision, unit_rows

__all__ = ["PairDistance", "margin_contrastive", "pair_distance"]

PairDistance = Literal["euclidean", "cosine"]


def margin_contrastive(
    distances: Tensor, labels: Tensor, *, margin: float = 1.0, squared: bool = False
) -> Tensor:
    r"""The mean over pairs of, with **Y = 1 for a dissimilar pair** and 0 for a similar one,

    .. math:: L = (1-Y)\, d^2 + Y \max(0, m - d)^2

    Equation 4 of Hadsell, Chopra & LeCun 2006, "Dimensionality Reduction by Learning an Invariant
    Mapping", without its factor ½. With ``squared`` the hinge is on the squared distance, which
    pushes close pairs apart no harder than others, and has a gradient that vanishes with d:

    .. math:: L = (1-Y)\, d^2 + Y \max(0, m - d^2)

    Args:
        distances: (B,) d ≥ 0, such as :func:`pair_distance` gives.
        labels: (B,) Y, 0 or 1, of any type; the values are the caller's care.
        margin: m > 0; with ``squared`` it is compared with squared distances.
        squared: the second form.

    Returns:
        A scalar, float32 or wider.

    Raises:
        ConfigError: shapes that do not fit, no pair, or m ≤ 0.
    """
    if distances.dim() != 1 or distances.shape != labels.shape or not len(labels):
        raise ConfigError(
            "distances and labels must both have shape (B,) with B of 1 or more, got "
            f"{tuple(distances.shape)} and {tuple(labels.shape)}"
        )
    if not (math.isfinite(margin) and margin > 0):
        raise ConfigError(f"margin must be above 0, got {margin}")
    wide = distances.to(torch.promote_types(distances.dtype, torch.float32))
    different = labels.to(wide.dtype)
    if squared:
        hinge = (margin - wide.square()).clamp_min(0)
    else:
        hinge = (margin - wide).clamp_min(0).square()
    return ((1 - different) * wide.square() + different * hinge).mean()


def pair_distance(first: Tensor, second: Tensor, metric: PairDistance = "euclidean") -> Tensor:
    """Distance of row i of ``first`` and row i of ``second``, both scaled to length 1.

    Args:
        first: (B, d), any floating type.
        second: (B, d).
        metric: ``euclidean``, 0 to 2, with a zero gradient where it is 0; or ``cosine``, 1 - cos,
            also 0 to 2, which is half the square of the other.

    Returns:
        (B,), float32 or wider.

    Raises:
        ConfigError: shapes that do not fit, or an unknown metric.
    """
    if first.dim() != 2 or first.shape != second.shape:
        raise ConfigError(
            "the two sides must both have shape (B, d), "
            f"got {tuple(first.shape)} and {tuple(second.shape)}"
        )
    if metric not in ("euclidean", "cosine"):
        raise ConfigError(f"metric is {metric!r}; use 'euclidean' or 'cosine'")
    with full_precision(first.device):
        # Of the difference, not of the cosine: 1 - cos cancels where the two are close.
        squared = (unit_rows(first) - unit_rows(second)).square().sum(dim=1)
    if metric == "cosine":
        return squared / 2
    same = squared <= 0
    return torch.where(same, 0, squared.masked_fill(same, 1).sqrt())
