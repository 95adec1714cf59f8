"""Cosine similarity as one matrix product, in at least single precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

__all__ = ["cosine_matrix", "full_precision", "unit_rows", "unit_rows_backward"]

_EPS = 1e-8


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """A block in which autocast does not lower the precision of what runs on ``device``."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def unit_rows(vectors: Tensor) -> Tensor:
    """Scale every vector to length 1, in float32 or wider.

    A vector shorter than 1e-8 has no direction: it becomes zero and gets a zero gradient, so that
    one dead embedding can neither divide by zero nor drown the gradient of the others.

    Args:
        vectors: (..., d), any floating type; half and bfloat16 are widened to float32.

    Returns:
        (..., d) vectors of length 1 (or 0).
    """
    wide = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
    length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    # Not `length > _EPS`: a NaN must reach the loss, not become a zero that nobody sees.
    return torch.where(length <= _EPS, torch.zeros_like(wide), wide / length.clamp_min(_EPS))


def unit_rows_backward(vectors: Tensor, gradient: Tensor) -> Tensor:
    """The gradient of :func:`unit_rows`, for losses that make their gradients by themselves.

    Args:
        vectors: (..., d), what was scaled.
        gradient: (..., d), the gradient with respect to the scaled vectors.

    Returns:
        (..., d), of the type of ``gradient``; 0 where a vector has no direction.
    """
    wide = vectors.to(gradient.dtype)
    length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    inverse = torch.where(length <= _EPS, torch.zeros_like(length), 1 / length.clamp_min(_EPS))
    unit = wide * inverse
    return (gradient - unit * (unit * gradient).sum(dim=-1, keepdim=True)) * inverse


def cosine_matrix(left: Tensor, right: Tensor) -> Tensor:
    """Cosine of every row of ``left`` with every row of ``right``.

    Normalises, then multiplies: never the (n, m, d) broadcast. Autocast is off inside.

    Args:
        left: (n, d).
        right: (m, d).

    Returns:
        (n, m), float32 or wider; 0 where a vector is zero.
    """
    with full_precision(left.device):
        a, b = unit_rows(left), unit_rows(right)
        wide = torch.promote_types(a.dtype, b.dtype)
        return a.to(wide) @ b.to(wide).T
