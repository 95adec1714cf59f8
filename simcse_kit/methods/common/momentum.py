"""Momentum encoder: a moving average of the trained weights, as in MoCo and BYOL."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

__all__ = ["Momentum", "cosine_momentum"]


class Momentum(nn.Module):
    """A copy of a module whose weights are a moving average of the module's weights.

    .. math:: \\theta_k \\leftarrow m\\,\\theta_k + (1 - m)\\,\\theta_q

    Equation 2 of arXiv 1911.05722. The copy gets no gradient. As a submodule of the method it is
    part of every checkpoint.

    Args:
        live: the module to follow, such as encoder or head.

    Examples:
        >>> layer = nn.Linear(1, 1)
        >>> average = Momentum(layer)
        >>> nn.init.zeros_(layer.weight)
        Parameter containing:
        tensor([[0.]], requires_grad=True)
        >>> average.follow(layer, momentum=0.0)
        >>> average.copy.weight
        Parameter containing:
        tensor([[0.]])
    """

    def __init__(self, live: nn.Module):
        super().__init__()
        self.copy = copy.deepcopy(live)
        for weight in self.copy.parameters():
            weight.requires_grad_(False)

    @torch.no_grad()
    def forward(self, *inputs: Tensor) -> Tensor:
        """Apply the copy, without gradient."""
        output: Tensor = self.copy(*inputs)
        return output

    @torch.no_grad()
    def follow(self, live: nn.Module, momentum: float) -> None:
        """Move the weights towards those of ``live``, and copy its buffers.

        Args:
            live: the module that was copied.
            momentum: m in [0, 1]; 1 keeps the weights, 0 copies those of ``live``.
        """
        mine: list[Tensor] = list(self.copy.parameters())
        theirs: list[Tensor] = list(live.parameters())
        torch._foreach_lerp_(mine, theirs, 1 - momentum)
        for own, other in zip(self.copy.buffers(), live.buffers(), strict=True):
            own.copy_(other)


def cosine_momentum(base: float, progress: float) -> float:
    """Return the momentum of BYOL's schedule, from ``base`` at the start to 1 at the end.

    Section 3.2 of arXiv 2006.07733.

    Args:
        base: momentum at the start.
        progress: completed share of the training, from 0 to 1.

    Examples:
        >>> cosine_momentum(0.9, 0.0), cosine_momentum(0.9, 1.0)
        (0.9, 1.0)
    """
    return 1 - (1 - base) * (math.cos(math.pi * progress) + 1) / 2
