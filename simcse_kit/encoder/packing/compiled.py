"""The part of a layer after attention, compiled into few kernels for accelerators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Tail", "compiled_tail"]

Tail: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Function from the input of a layer ``(T, d)`` and its attention output ``(T, d)`` to its output
``(T, d)``."""


def compiled_tail(
    linears: Sequence[nn.Linear], norms: Sequence[nn.LayerNorm], dropouts: tuple[float, float]
) -> Tail:
    """Make the part of a layer after attention, for the exact GELU.

    Dropout keeps the operator of torch, so that it draws the same numbers with and without a
    gradient, as gradient caching needs, and as the layer that is not compiled.

    Args:
        linears: Output map of attention, up and down map of the feed-forward part.
        norms: LayerNorm after attention and after the feed-forward part.
        dropouts: Dropout after attention and after the feed-forward part; 0 in evaluation mode.
    """

    def run(inner: Tensor, mixed: Tensor) -> Tensor:
        weights = [(linear.weight, linear.bias) for linear in linears]
        scales = [(norm.weight, norm.bias, norm.eps) for norm in norms]
        result: Tensor = _compiled()(inner, mixed, weights, scales, dropouts)
        return result

    return run


def _after_attention(
    inner: Tensor,
    mixed: Tensor,
    weights: list[tuple[Tensor, Tensor | None]],
    scales: list[tuple[Tensor, Tensor, float]],
    dropouts: tuple[float, float],
) -> Tensor:
    out, up, down = weights

    def normalised(states: Tensor, scale: tuple[Tensor, Tensor, float]) -> Tensor:
        weight, bias, eps = scale
        return F.layer_norm(states, (states.shape[1],), weight, bias, eps)

    def dropped(states: Tensor, rate: float) -> Tensor:
        return F.dropout(states, rate) if rate else states

    middle = normalised(inner + dropped(F.linear(mixed, *out), dropouts[0]), scales[0])
    lowered = F.linear(F.gelu(F.linear(middle, *up)), *down)
    return normalised(middle + dropped(lowered, dropouts[1]), scales[1])


@cache
def _compiled() -> Any:
    # One compiled function serves all layers and numbers of tokens.
    return torch.compile(
        _after_attention, dynamic=True, fullgraph=True, options={"fallback_random": True}
    )
