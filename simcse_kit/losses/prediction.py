"""Losses without negatives: one view predicts the vector of the other (BYOL, SimSiam)."""

from __future__ import annotations

import torch
from torch import Tensor

from simcse_kit.errors import ConfigError
from simcse_kit.losses.similarity import full_precision, unit_rows

__all__ = ["negative_cosine", "normalized_mse"]


def negative_cosine(predictions: Tensor, targets: Tensor, *, stop_gradient: bool = True) -> Tensor:
    r"""The mean over rows of

    .. math:: D(p, z) = -\frac{p}{\lVert p \rVert} \cdot \frac{z}{\lVert z \rVert}

    Equations 1 and 3 of arXiv 2011.10566.

    Args:
        predictions: (N, d), any floating type; computed in float32 or wider.
        targets: (N, d).
        stop_gradient: gradient flows to the predictions alone.

    Returns:
        A scalar, -1 where all directions agree, 1 where all are opposite.

    Raises:
        ConfigError: the shapes differ, or there are no rows.
    """
    return -_mean_cosine(predictions, targets.detach() if stop_gradient else targets)


def normalized_mse(predictions: Tensor, targets: Tensor) -> Tensor:
    r"""The mean over rows of

    .. math::
        \left\lVert \frac{q}{\lVert q \rVert} - \frac{z}{\lVert z \rVert} \right\rVert_2^2
        = 2 - 2\,\frac{q \cdot z}{\lVert q \rVert\,\lVert z \rVert}

    Equation 2 of arXiv 2006.07733. Gradient flows to the predictions alone.

    Args:
        predictions: (N, d), any floating type; computed in float32 or wider.
        targets: (N, d).

    Returns:
        A scalar, 0 where all directions agree, 4 where all are opposite.

    Raises:
        ConfigError: the shapes differ, or there are no rows.
    """
    return 2 - 2 * _mean_cosine(predictions, targets.detach())


def _mean_cosine(left: Tensor, right: Tensor) -> Tensor:
    if left.dim() != 2 or left.shape != right.shape or not len(left):
        raise ConfigError(
            "predictions and targets must both have shape (N, d) with N of 1 or more, "
            f"got {tuple(left.shape)} and {tuple(right.shape)}"
        )
    with full_precision(left.device):
        wide = torch.promote_types(left.dtype, right.dtype)
        return (unit_rows(left.to(wide)) * unit_rows(right.to(wide))).sum(dim=1).mean()
