"""Cosine similarity and unit vectors in at least single precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

__all__ = [
    "cosine_matrix",
    "full_precision",
    "pair_cosine",
    "safe_sqrt",
    "unit_rows",
    "unit_rows_backward",
]

_EPS = 1e-8


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which autocast does not lower the precision on ``device``."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def unit_rows(vectors: Tensor) -> Tensor:
    """Scale every vector to length 1, in float32 or wider.

    A vector shorter than 1e-8 has no direction. It becomes zero and gets a zero gradient, so that
    one dead embedding neither causes a division by zero nor dominates the gradient.

    Args:
        vectors: (..., d), any floating type; half and bfloat16 are widened to float32.

    Returns:
        (..., d) vectors of length 1 (or 0).

    Examples:
        >>> unit_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
        tensor([[0.6000, 0.8000],
                [0.0000, 0.0000]])
    """
    wide = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
    length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    # Not `length > _EPS`: a NaN must reach the loss instead of turning into a silent zero.
    return torch.where(length <= _EPS, torch.zeros_like(wide), wide / length.clamp_min(_EPS))


def unit_rows_backward(vectors: Tensor, gradient: Tensor) -> Tensor:
    """Compute the gradient of :func:`unit_rows`, for losses with a backward pass of their own.

    Args:
        vectors: (..., d), the input of :func:`unit_rows`.
        gradient: (..., d), the gradient with respect to the unit vectors.

    Returns:
        (..., d), of the type of ``gradient``; 0 where a vector has no direction.
    """
    wide = vectors.to(gradient.dtype)
    length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    inverse = torch.where(length <= _EPS, torch.zeros_like(length), 1 / length.clamp_min(_EPS))
    unit = wide * inverse
    return (gradient - unit * (unit * gradient).sum(dim=-1, keepdim=True)) * inverse


def cosine_matrix(left: Tensor, right: Tensor) -> Tensor:
    """Compute the cosine of every row of ``left`` with every row of ``right``.

    This is one matrix product of unit vectors, without a broadcast to (n, m, d) and without
    autocast.

    Args:
        left: (n, d).
        right: (m, d).

    Returns:
        (n, m), float32 or wider; 0 where a vector is zero.

    Examples:
        >>> cosine_matrix(torch.eye(2), torch.tensor([[2.0, 0.0]]))
        tensor([[1.],
                [0.]])
    """
    with full_precision(left.device):
        a, b = unit_rows(left), unit_rows(right)
        wide = torch.promote_types(a.dtype, b.dtype)
        return a.to(wide) @ b.to(wide).T


def pair_cosine(first: Tensor, second: Tensor) -> Tensor:
    """Compute the cosine of every pair of rows.

    Args:
        first: (B, d).
        second: (B, d).

    Returns:
        (B,), float32 or wider; 0 where a vector is zero.

    Examples:
        >>> pair_cosine(torch.eye(2), torch.tensor([[2.0, 0.0], [1.0, 0.0]]))
        tensor([1., 0.])
    """
    with full_precision(first.device):
        return (unit_rows(first) * unit_rows(second)).sum(dim=1)


def safe_sqrt(values: Tensor) -> Tensor:
    """Take the square root with gradient 0, instead of infinity, at values of 0 and below."""
    zero = values <= 0
    return torch.where(zero, 0, values.masked_fill(zero, 1).sqrt())
