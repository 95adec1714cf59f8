"""A copy of modules that follows them slowly: the momentum encoder of MoCo, BYOL and their kin."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

__all__ = ["Momentum", "cosine_momentum"]


class Momentum(nn.Module):
    """A copy of ``live`` whose weights are a moving average of its weights.

    .. math:: \\theta_k \\leftarrow m\\,\\theta_k + (1 - m)\\,\\theta_q

    Equation 2 of arXiv 1911.05722. The copy gets no gradient; it is a submodule of the method, so
    that a checkpoint holds it.

    Args:
        live: the modules to follow, such as encoder and head.
    """

    def __init__(self, live: nn.Module):
        super().__init__()
        self.copy = copy.deepcopy(live)
        for weight in self.copy.parameters():
            weight.requires_grad_(False)

    @torch.no_grad()
    def forward(self, *inputs: Tensor) -> Tensor:
        """What the copy makes of the inputs, without gradient."""
        output: Tensor = self.copy(*inputs)
        return output

    @torch.no_grad()
    def follow(self, live: nn.Module, momentum: float) -> None:
        """Move towards ``live``; buffers, such as BatchNorm statistics, are taken over.

        Args:
            live: what was copied.
            momentum: m in [0, 1]; 1 stands still, 0 takes the weights over.
        """
        mine: list[Tensor] = list(self.copy.parameters())
        theirs: list[Tensor] = list(live.parameters())
        torch._foreach_lerp_(mine, theirs, 1 - momentum)
        for own, other in zip(self.copy.buffers(), live.buffers(), strict=True):
            own.copy_(other)


def cosine_momentum(base: float, progress: float) -> float:
    """The schedule of BYOL (arXiv 2006.07733): from ``base`` at the start to 1 at the end.

    Args:
        base: momentum at the start.
        progress: share of the training that is done, 0 to 1.
    """
    return 1 - (1 - base) * (math.cos(math.pi * progress) + 1) / 2
