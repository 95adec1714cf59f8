"""Arrays in the memory of the host."""

from __future__ import annotations

from typing import Any

__all__ = ["on_host"]


def on_host(vectors: Any) -> Any:
    """Copy tensors to the host as NumPy arrays, because NumPy reads neither GPUs nor bfloat16.

    Args:
        vectors: Result of a foreign ``encode``: a tensor on any device, a list of tensors, or
            something else, which is returned unchanged.

    Examples:
        >>> import torch
        >>> on_host(torch.ones(2, dtype=torch.bfloat16))
        array([1., 1.], dtype=float32)
        >>> on_host([[1.0, 2.0]])
        [[1.0, 2.0]]
    """
    if isinstance(vectors, list | tuple):
        return [on_host(row) for row in vectors] if vectors and _is_tensor(vectors[0]) else vectors
    return vectors.detach().float().cpu().numpy() if _is_tensor(vectors) else vectors


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "detach")
