"""The sum of a loss over several prefixes of the dimensions (Matryoshka, arXiv 2205.13147)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from simcse_kit.errors import ConfigError

__all__ = ["check_prefixes", "prefix_losses"]


def prefix_losses(
    loss: Callable[[Tensor], Tensor],
    embeddings: Tensor,
    dims: Sequence[int],
    weights: Sequence[float] = (),
) -> tuple[Tensor, list[Tensor]]:
    r"""Sum a loss over prefixes of the embeddings, so that truncated embeddings remain useful:

    .. math:: \sum_m c_m \, L(h_{1:m})

    Equation 1 of arXiv 2205.13147. Prefixes are not scaled to length 1; a cosine loss does that.

    Args:
        loss: The loss, a function from (..., m) embeddings to a scalar.
        embeddings: (..., d).
        dims: The prefix lengths m, each from 1 to d.
        weights: The weight c of each prefix. By default, all are 1, as in the paper.

    Returns:
        The weighted sum, and the loss of each prefix without its weight.

    Raises:
        ConfigError: See :func:`check_prefixes`.

    Examples:
        >>> import torch
        >>> prefix_losses(lambda h: h.sum(), torch.ones(1, 4), dims=[2, 4])
        (tensor(6.), [tensor(2.), tensor(4.)])
    """
    check_prefixes(dims, weights, width=embeddings.shape[-1])
    parts = [loss(embeddings[..., :dim]) for dim in dims]
    total = weights[0] * parts[0] if weights else parts[0]
    for number, part in enumerate(parts[1:], start=1):
        total = total + (weights[number] * part if weights else part)
    return total, parts


def check_prefixes(
    dims: Sequence[int], weights: Sequence[float] = (), *, width: int | None = None
) -> None:
    """Check the prefixes of the embeddings that are trained.

    Args:
        dims: The prefix lengths.
        weights: One weight for each prefix, or none.
        width: The number of dimensions of the embeddings, if known.

    Raises:
        ConfigError: There is no prefix, a prefix is below 1, above the width or given twice, or
            the weights have another number or are not above 0.
    """
    listed = list(dims)
    if not listed or min(listed) < 1 or len(set(listed)) < len(listed):
        raise ConfigError(
            f"matryoshka is {listed}; give different numbers of dimensions, 1 or more each, "
            "such as [64, 128, 256]"
        )
    if width is not None and max(listed) > width:
        raise ConfigError(
            f"matryoshka is {listed} but the embeddings have {width} dimensions; "
            f"give numbers up to {width}"
        )
    if weights and len(weights) != len(listed):
        raise ConfigError(
            f"matryoshka has {len(listed)} numbers of dimensions and {len(weights)} weights; "
            "give one weight each, or none"
        )
    if any(not (math.isfinite(weight) and weight > 0) for weight in weights):
        raise ConfigError(f"matryoshka weights are {list(weights)}; each must be above 0")
