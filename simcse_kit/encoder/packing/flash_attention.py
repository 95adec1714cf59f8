"""Packed attention by the kernels for variable lengths on NVIDIA GPUs."""

from __future__ import annotations

import torch
from torch import Tensor

from simcse_kit.encoder.packing.layout import Layout

__all__ = ["kernel_attention", "kernel_serves"]


def kernel_serves(query: Tensor, value: Tensor, *, dropout: float, bias: Tensor | None) -> bool:
    """Whether the kernel computes what is asked for.

    It takes half precision and values as wide as the queries only, adds nothing to the scores, and
    has no dropout.
    """
    if query.device.type != "cuda" or query.dtype not in (torch.float16, torch.bfloat16):
        return False
    if dropout or bias is not None or query.shape[-1] != value.shape[-1]:
        return False
    # What FlashAttention has kernels for.
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
    asking: Layout,
    layout: Layout,
    *,
    scale: float,
    behind: int | None,
    ahead: int | None,
) -> Tensor:
    """:func:`~simcse_kit.encoder.packing.attention.block_attention` in one kernel.

    Args:
        query: ``(T, heads, d)`` or ``(R, heads, d)``, half precision.
        key: ``(T, kv_heads, d)``.
        value: ``(T, kv_heads, d)``.
        asking: where the rows of the queries are.
        layout: where the rows of keys and values are.
        scale: factor on the scores.
        behind: number of tokens before itself that a token sees; None for all.
        ahead: number of tokens after itself that a token sees; None for all.

    Returns:
        Of the shape of ``query``.
    """
    from torch.nn.attention.varlen import varlen_attn

    device = query.device
    mixed = varlen_attn(
        query,
        key,
        value,
        asking.boundaries(device),
        layout.boundaries(device),
        asking.longest,
        layout.longest,
        scale=scale,
        window_size=(-1 if behind is None else behind, -1 if ahead is None else ahead),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return mixed if isinstance(mixed, Tensor) else mixed[0]
