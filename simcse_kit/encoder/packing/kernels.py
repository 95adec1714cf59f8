"""Packed attention on accelerators: one kernel for variable lengths, or padded attention.

The kernels are the private operators that the attention of ``torch.nested`` calls:
https://github.com/pytorch/pytorch/blob/v2.11.0/torch/nested/_internal/sdpa.py
They take cumulative lengths, apply dropout to the probabilities, and are differentiable; the
backward pass draws the mask of dropout again from the seed of the forward pass. Before its first
use on a device a kernel is compared with padded attention. If torch lacks it, or its result
differs, padded attention is used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from simcse_kit.encoder.device import usual_state
from simcse_kit.encoder.packing.device_index import DeviceIndex
from simcse_kit.encoder.packing.layout import Layout, Window, layout_of

__all__ = ["KERNELS", "Scores", "for_all_heads", "indexed_attention", "padded_attention"]

logger = logging.getLogger(__name__)

_ALL = Window()
_HALF = (torch.float16, torch.bfloat16)
# Mean number of tokens of a row from which FlashAttention is preferred; at 19 tokens it takes 1.4
# times as long as the memory-efficient kernel.
_FLASH_FROM = 128
# The kernels number the rows by an axis of the grid, which ends there.
_MOST_ROWS = 65535
# Numbers of tokens of the rows on which a kernel is compared with padded attention.
_TRIAL = (9, 5, 3, 1)


@dataclass(frozen=True)
class Scores:
    """How attention scores become probabilities.

    Attributes:
        scale: Factor on the scores.
        dropout: Probability with which an attention probability becomes 0.
        window: Tokens that a token attends to.
        bias: ``(heads, L, L)`` added to the scores, for the longest row.
    """

    scale: float
    dropout: float = 0.0
    window: Window = _ALL
    bias: Tensor | None = None


Attention: TypeAlias = Callable[[Tensor, Tensor, Tensor, Layout, Layout, Scores], Tensor]


def indexed_attention(
    query: Tensor, key: Tensor, value: Tensor, query_layout: Layout, layout: Layout, scores: Scores
) -> Tensor:
    """Compute :func:`~simcse_kit.encoder.packing.attention.block_attention` on an accelerator.

    Args:
        query: ``(T, heads, d)``; or ``(R, heads, d)`` with the layout of first tokens.
        key: ``(T, kv_heads, d)``; ``heads`` is a multiple of ``kv_heads``.
        value: ``(T, kv_heads, d_v)``.
        query_layout: Layout of the queries, with an index.
        layout: Layout of keys and values, with an index.
        scores: How scores become probabilities.
    """
    scores = replace(scores, window=scores.window.within(layout.longest))
    query, key, value = _of_one_type(query, key, value)
    name = _kernel_for(query, value, query_layout, layout, scores)
    attend: Attention = padded_attention
    if name is not None and _agrees(name, query.device, query.dtype, query.shape[2]):
        attend = KERNELS[name]
    return attend(query, key, value, query_layout, layout, scores)


def padded_attention(
    query: Tensor, key: Tensor, value: Tensor, query_layout: Layout, layout: Layout, scores: Scores
) -> Tensor:
    """Compute the same as :func:`indexed_attention` with torch's attention on padded rows."""
    outer, inner = _index_of(query_layout), _index_of(layout)
    mask = inner.mask[:, None, None]
    behind, ahead = scores.window.behind, scores.window.ahead
    if behind is not None or ahead is not None:
        places = torch.arange(layout.longest, device=query.device)
        distance = places - places[: query_layout.longest, None]
        if ahead is not None:
            mask = mask & (distance <= ahead)
        if behind is not None:
            mask = mask & (distance >= -behind)
    if scores.bias is not None:
        bias = scores.bias[:, : query_layout.longest].to(query.dtype)
        mask = bias.masked_fill(~mask, -torch.inf)
    key, value = for_all_heads(query, key, value)
    q, k, v = (
        index.pad(part).transpose(1, 2)
        for index, part in ((outer, query), (inner, key), (inner, value))
    )
    with _deterministic_if_wanted():
        mixed = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=scores.dropout, scale=scores.scale
        )
    return outer.unpad(mixed.transpose(1, 2))


def for_all_heads(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Repeat keys and values ``(T, kv_heads, d)`` to the heads of ``query``, ``(T, heads, d)``."""
    repeats = query.shape[1] // key.shape[1]
    if repeats == 1:
        return key, value
    return key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)


def _index_of(layout: Layout) -> DeviceIndex:
    assert layout.index is not None
    return layout.index


def _deterministic_if_wanted() -> AbstractContextManager[Any]:
    # Some of the kernels that torch may choose add gradients in any order. The kernels below do not
    # if deterministic operators are asked for.
    if torch.are_deterministic_algorithms_enabled():
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()


# ---------------------------------------------------------------- kernels


def _efficient(
    query: Tensor, key: Tensor, value: Tensor, query_layout: Layout, layout: Layout, scores: Scores
) -> Tensor:
    """Run the memory-efficient kernel, for all tokens of a row or all tokens before."""
    outer, inner = _index_of(query_layout), _index_of(layout)
    key, value = for_all_heads(query, key, value)
    mixed: Tensor = torch.ops.aten._efficient_attention_forward(
        query[None],
        key[None],
        value[None],
        None,
        outer.boundaries,
        inner.boundaries,
        query_layout.longest,
        layout.longest,
        scores.dropout,
        int(scores.window.ahead == 0),
        torch.is_grad_enabled() and any(part.requires_grad for part in (query, key, value)),
        scale=scores.scale,
    )[0]
    return mixed[0]


def _flash(
    query: Tensor, key: Tensor, value: Tensor, query_layout: Layout, layout: Layout, scores: Scores
) -> Tensor:
    """Run FlashAttention, in half precision, for any window."""
    outer, inner = _index_of(query_layout), _index_of(layout)
    behind, ahead = scores.window.behind, scores.window.ahead
    mixed: Tensor = torch.ops.aten._flash_attention_forward(
        query,
        key,
        value,
        outer.boundaries,
        inner.boundaries,
        query_layout.longest,
        layout.longest,
        scores.dropout,
        False,
        False,
        scale=scores.scale,
        window_size_left=-1 if behind is None else behind,
        window_size_right=-1 if ahead is None else ahead,
    )[0]
    return mixed


KERNELS: dict[str, Attention] = {
    "_efficient_attention_forward": _efficient,
    "_flash_attention_forward": _flash,
}
"""Name of the operator -> function that calls it."""

# The arguments that the functions above give by position, and by name.
_SIGNATURES = {
    "_efficient_attention_forward": (
        "query key value bias cu_seqlens_q cu_seqlens_k max_seqlen_q max_seqlen_k dropout_p "
        "custom_mask_type compute_log_sumexp",
        {"scale"},
    ),
    "_flash_attention_forward": (
        "query key value cum_seq_q cum_seq_k max_q max_k dropout_p is_causal return_debug_mask",
        {"scale", "window_size_left", "window_size_right"},
    ),
}


def _kernel_for(
    query: Tensor, value: Tensor, query_layout: Layout, layout: Layout, scores: Scores
) -> str | None:
    """Choose the kernel that supports these arguments; None for padded attention."""
    device, width = query.device, query.shape[2]
    # With cumulative lengths, the kernels take no bias.
    if scores.bias is not None or len(layout.order) > _MOST_ROWS:
        return None
    if device.type not in ("cuda", "meta") or query.dtype not in (torch.float32, *_HALF):
        return None
    # The width at which all of their variants are aligned.
    if width % 8 or width != value.shape[2]:
        return None
    window, firsts = scores.window, query_layout is not layout
    # FlashAttention aligns the ends of the rows if there are fewer queries than keys.
    flash = query.dtype in _HALF and width <= 256 and not firsts and _modern(device)
    if flash and layout.tokens >= _FLASH_FROM * len(layout.order):
        return "_flash_attention_forward"
    if window == _ALL or (window == Window(None, 0) and not firsts):
        return "_efficient_attention_forward"
    return "_flash_attention_forward" if flash else None


def _modern(device: torch.device) -> bool:
    return device.type != "cuda" or torch.cuda.get_device_capability(device) >= (8, 0)


def _of_one_type(*parts: Tensor) -> list[Tensor]:
    """Cast tensors as autocast casts the inputs of torch's attention."""
    kind = parts[0].device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return [part.to(torch.get_autocast_dtype(kind)) for part in parts]
    return list(parts)


@cache
def _agrees(name: str, device: torch.device, dtype: torch.dtype, width: int) -> bool:
    """Whether a kernel exists and gives the vectors and gradients of padded attention."""
    reason = _missing(name)
    if reason is None and device.type != "meta":
        try:
            reason = _difference(KERNELS[name], device, dtype, width)
        # A kernel that does not support the card may raise any error.
        except Exception as error:
            reason = " ".join(str(error).split())
    if reason is not None:
        logger.warning(
            "attention runs on padded rows, which is slower: torch %s, operator %s: %.200s",
            torch.__version__,
            name,
            reason,
        )
    return reason is None


def _missing(name: str) -> str | None:
    """Return what this torch lacks for a kernel; None if nothing."""
    operator = getattr(torch.ops.aten, name, None)
    if operator is None:
        return "it does not exist"
    arguments = [argument.name for argument in operator.default._schema.arguments]
    positional, named = _SIGNATURES[name]
    if arguments[: len(positional.split())] != positional.split() or not named < set(arguments):
        return "it has other arguments"
    return None


def _difference(
    kernel: Attention, device: torch.device, dtype: torch.dtype, width: int
) -> str | None:
    """Compare a kernel with padded attention; the random state stays the same."""
    tolerance = 1e-3 if dtype == torch.float32 else 8 * torch.finfo(dtype).eps
    forked = torch.random.fork_rng([device] if device.type == "cuda" else [])
    with forked, torch.inference_mode(False), torch.enable_grad(), usual_state(device):
        layout = layout_of(_TRIAL, device)
        shape = (3, layout.tokens, 2, width)
        generator = torch.Generator().manual_seed(0)
        parts = torch.randn(shape, generator=generator).to(device, dtype).requires_grad_()
        query, key, value = parts
        found = []
        for attend in (kernel, padded_attention):
            mixed = attend(query, key, value, layout, layout, Scores(width**-0.5))
            (gradient,) = torch.autograd.grad(mixed.square().sum(), parts)
            found.append((mixed.detach(), gradient))
        for one, other in zip(*found, strict=True):
            distance = float((one - other).float().norm() / other.float().norm())
            if not distance <= tolerance:
                return f"its relative difference from padded attention is {distance:.2g}"
        mixed = kernel(query, key, value, layout, layout, Scores(width**-0.5, dropout=0.5))
        (gradient,) = torch.autograd.grad(mixed.square().sum(), parts)
        # The outputs are linear in the values, if both passes drop the same probabilities.
        expected = 2 * mixed.detach().float().square().sum()
        distance = float((gradient[2] * value.detach()).float().sum() / expected - 1)
        if not abs(distance) <= 4 * tolerance:
            return "its backward pass draws another mask of dropout"
        if torch.equal(mixed, found[0][0]):
            return "it has no dropout"
    return None
