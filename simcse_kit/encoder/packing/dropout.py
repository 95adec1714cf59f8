"""Dropout with cheap random numbers.

On CPUs torch needs about 6 ns per element of a mask, which is a tenth of a training step. Here
every element gets 16 random bits, so that probabilities are exact to 1/131072.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Noise", "add_dropped", "cheap"]

_LEVELS = 1 << 16


def cheap(tensor: Tensor) -> bool:
    """Whether this dropout supports a tensor: float32 or float64 on a CPU."""
    return tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.float64)


class Noise:
    """Random numbers of one forward pass, for one thread.

    The seed comes from torch's global generator, so restoring that restores the masks. It is drawn
    at the first use, so that a pass without dropout draws nothing.

    Args:
        at_once: Whether the seed is drawn now, for use in another thread.
    """

    def __init__(self, *, at_once: bool = False) -> None:
        self._source = self._seeded() if at_once else None

    @staticmethod
    def _seeded() -> np.random.SFC64:
        return np.random.SFC64(int(torch.randint(2**63 - 1, ())))

    def keep_mask(self, shape: Sequence[int], probability: float) -> tuple[Tensor, float]:
        """Draw the elements that dropout keeps.

        Args:
            shape: Shape of the mask.
            probability: Probability of an element to be dropped, in (0, 1).

        Returns:
            A bool tensor on the CPU, and the factor by which kept elements are scaled.
        """
        count = math.prod(shape)
        dropped = min(max(round(probability * _LEVELS), 1), _LEVELS - 1)
        if self._source is None:
            self._source = self._seeded()
        words = self._source.random_raw(-(-count // 4))
        bits = torch.from_numpy(words).view(torch.int16)[:count].view(*shape)
        return bits >= dropped - _LEVELS // 2, _LEVELS / (_LEVELS - dropped)


def add_dropped(residual: Tensor, update: Tensor, probability: float, noise: Noise) -> Tensor:
    """Compute ``residual + dropout(update)``.

    Args:
        residual: Any shape.
        update: The same shape.
        probability: Probability of an element of ``update`` to become 0; the others are scaled up.
        noise: Source of the random numbers.
    """
    if not probability:
        return residual + update
    if not (cheap(residual) and cheap(update)):
        return residual + F.dropout(update, probability)
    result: Tensor = _AddDropped.apply(  # type: ignore[no-untyped-call]
        residual, update, probability, noise
    )
    return result


class _AddDropped(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, residual: Tensor, update: Tensor, probability: float, noise: Noise
    ) -> Tensor:
        keep, ctx.factor = noise.keep_mask(update.shape, probability)
        ctx.save_for_backward(keep)
        return torch.addcmul(residual, update, keep.to(update.dtype), value=ctx.factor)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (keep,) = ctx.saved_tensors
        return grad, keep.to(grad.dtype).mul_(grad).mul_(ctx.factor), None, None
