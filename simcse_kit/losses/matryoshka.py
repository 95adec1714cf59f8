"""One loss on several prefixes of the dimensions (Matryoshka, arXiv 2205.13147)."""

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
    r"""The loss of several prefixes at once, so that an embedding can be cut and still serve:

    .. math:: \sum_m c_m \, L(h_{1:m})

    Equation 1 of arXiv 2205.13147. A prefix is not scaled; a loss of cosines does that itself.

    Args:
        loss: gives a scalar for (..., m) embeddings.
        embeddings: (..., d).
        dims: the prefixes m, each from 1 to d; they may well include d.
        weights: c of each prefix; all 1, as in the paper, where it is empty.

    Returns:
        The weighted sum, and the loss of each prefix before its weight.

    Raises:
        ConfigError: see :func:`check_prefixes`.
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
    """Refuse prefixes that cannot be trained.

    Args:
        dims: the prefixes.
        weights: one for each, or none.
        width: of the embeddings, where it is known.

    Raises:
        ConfigError: no prefix, one below 1 or beyond the width, one given twice, a count of weights
            that differs, or a weight that is not above 0.
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
