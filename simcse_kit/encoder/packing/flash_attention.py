"""Packed attention with the kernels for variable lengths on NVIDIA GPUs."""

from __future__ import annotations

import torch
from torch import Tensor

from simcse_kit.encoder.packing.layout import Layout, Window

__all__ = ["kernel_attention", "kernel_serves"]


def kernel_serves(query: Tensor, value: Tensor, *, dropout: float, bias: Tensor | None) -> bool:
    """Whether the kernel supports these arguments.

    It supports half precision and values as wide as the queries only, and neither dropout nor a
    bias on the scores.
    """
    if query.device.type != "cuda" or query.dtype not in (torch.float16, torch.bfloat16):
        return False
    if dropout or bias is not None or query.shape[-1] != value.shape[-1]:
        return False
    # The head sizes that FlashAttention has kernels for.
    if query.shape[-1] % 8 or query.shape[-1] > 256:
        return False
    if torch.cuda.get_device_capability(query.device) < (8, 0):
        return False
    try:
        from torch.nn.attention import varlen
    except ImportError:  # torch before 2.10
        return False
    return "enable_gqa" in varlen.varlen_attn.__annotations__


def kernel_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_layout: Layout,
    layout: Layout,
    *,
    scale: float,
    window: Window,
) -> Tensor:
    """Compute :func:`~simcse_kit.encoder.packing.attention.block_attention` in one kernel.

    Queries, keys and values are in half precision; :func:`kernel_serves` has the other limits.
    """
    from torch.nn.attention.varlen import varlen_attn

    device = query.device
    mixed = varlen_attn(
        query,
        key,
        value,
        query_layout.boundaries(device),
        layout.boundaries(device),
        query_layout.longest,
        layout.longest,
        scale=scale,
        window_size=(
            -1 if window.behind is None else window.behind,
            -1 if window.ahead is None else window.ahead,
        ),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return mixed if isinstance(mixed, Tensor) else mixed[0]
