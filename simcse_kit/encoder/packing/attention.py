"""Attention within each row of a packed batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from simcse_kit.encoder.packing.dropout import Noise, cheap
from simcse_kit.encoder.packing.kernels import Scores, for_all_heads, indexed_attention
from simcse_kit.encoder.packing.layout import Layout, Window

__all__ = ["block_attention", "masks_of"]

_ALL = Window()


def block_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    *,
    scale: float,
    dropout: float = 0.0,
    noise: Noise | None = None,
    window: Window = _ALL,
    bias: Tensor | None = None,
    masks: Callable[[], Sequence[Tensor | None]] | None = None,
) -> Tensor:
    """Compute softmax attention in which a token attends to the tokens of its own row only.

    Dropout acts on the attention probabilities, as in the models themselves. The public kernel of
    torch for variable lengths omits it, and with it half of the noise between SimCSE's positives.

    Args:
        query: ``(T, heads, d)``; or ``(R, heads, d)`` for the first token of each row only.
        key: ``(T, kv_heads, d)``; ``heads`` is a multiple of ``kv_heads``.
        value: ``(T, kv_heads, d_v)``.
        layout: Layout of the rows.
        scale: Factor on the scores.
        dropout: Probability with which an attention probability becomes 0.
        noise: Source of the random numbers of dropout; None for a new one.
        window: Tokens that a token attends to.
        bias: ``(heads, L, L)`` added to the scores, for the longest row.
        masks: Function that returns the result of :func:`masks_of` for these arguments, to share it
            between layers.

    Returns:
        The shape of ``query``, with the width of ``value``.
    """
    query_layout = layout if len(query) == layout.tokens else layout.of_firsts()
    if layout.index is not None:
        scores = Scores(scale, dropout, window, bias)
        return indexed_attention(query, key, value, query_layout, layout, scores)
    key, value = for_all_heads(query, key, value)
    added = (
        masks_of(query_layout, layout, window=window, bias=bias, like=query)
        if masks is None
        else masks()
    )
    if query.dtype == torch.bfloat16 and torch.is_grad_enabled():
        # On CPUs the gradient of torch's kernel takes three times as long in bf16 as in fp32.
        wide_masks = [None if mask is None else mask.float() for mask in added]
        with torch.autocast("cpu", enabled=False):
            return block_attention(
                query.float(),
                key.float(),
                value.float(),
                layout,
                scale=scale,
                dropout=dropout,
                noise=noise,
                masks=lambda: wide_masks,
            ).to(query.dtype)
    if dropout and cheap(query) and query.shape[-1] == value.shape[-1]:
        result: Tensor = _DroppedAttention.apply(  # type: ignore[no-untyped-call]
            query, key, value, query_layout, layout, scale, dropout, noise or Noise(), *added
        )
        return result
    outputs = [
        _attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), mask, dropout, scale)
        .transpose(1, 2)
        .flatten(0, 1)
        for q, k, v, mask in zip(
            query_layout.by_group(query),
            layout.by_group(key),
            layout.by_group(value),
            added,
            strict=True,
        )
    ]
    return torch.cat(outputs)


def _attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float, scale: float
) -> Tensor:
    # On CPUs torch's kernel is made for long rows; at these lengths three steps are a fifth
    # faster, at shorter and longer ones they are not.
    plain = mask is None and not dropout and not torch.is_grad_enabled()
    if plain and query.device.type == "cpu" and 16 <= key.shape[2] < 32:
        return (query @ key.transpose(-1, -2)).mul_(scale).softmax(dim=-1) @ value
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, dropout_p=dropout, scale=scale
    )


def masks_of(
    query_layout: Layout,
    layout: Layout,
    *,
    window: Window,
    bias: Tensor | None = None,
    like: Tensor,
) -> list[Tensor | None]:
    """Make the masks that are added to the scores of each group of rows of equal length.

    Returns:
        For each group ``(queries, keys)``, with a leading dimension of heads if there is a bias;
        None for no mask. Device and type are those of ``like``.
    """
    return [
        _mask(queries, length, window, bias, like)
        for (_, queries), (_, length) in zip(query_layout.groups, layout.groups, strict=True)
    ]


def _mask(
    queries: int, length: int, window: Window, bias: Tensor | None, like: Tensor
) -> Tensor | None:
    mask = None if bias is None else bias[:, :queries, :length]
    behind, ahead = window.behind, window.ahead
    if any(side is not None and side < length - 1 for side in (behind, ahead)):
        places = torch.arange(length, device=like.device)
        distance = places - places[:queries, None]
        hidden = torch.zeros_like(distance, dtype=torch.bool)
        if ahead is not None:
            hidden = hidden | (distance > ahead)
        if behind is not None:
            hidden = hidden | (distance < -behind)
        lowest = torch.zeros_like(distance, dtype=like.dtype).masked_fill(hidden, -torch.inf)
        mask = lowest if mask is None else mask + lowest
    return mask


class _DroppedAttention(torch.autograd.Function):
    """Attention with dropout, group by group, with an explicit gradient.

    torch's attention has no fast path with dropout on CPUs. Built from single operators, the
    autograd graph of dozens of groups per layer, and the copies between them, would cost more than
    the matrix products.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        query_layout: Layout,
        layout: Layout,
        scale: float,
        dropout: float,
        noise: Noise,
        *masks: Tensor | None,
    ) -> Tensor:
        heads = query.shape[1]
        sizes = [
            rows * heads * queries * length
            for (rows, queries), (_, length) in zip(query_layout.groups, layout.groups, strict=True)
        ]
        keep, factor = noise.keep_mask([sum(sizes)], dropout)
        result = torch.empty_like(query, memory_format=torch.contiguous_format)
        saved: list[Tensor] = []
        for q, k, v, out, kept, mask in zip(
            query_layout.by_group(query),
            layout.by_group(key),
            layout.by_group(value),
            query_layout.by_group(result),
            torch.split(keep, sizes),
            masks,
            strict=True,
        ):
            q, k, v = _heads_first(q), _heads_first(k), _heads_first(v)
            scores = torch.bmm(q.flatten(0, 1), k.flatten(0, 1).mT).mul_(scale)
            if mask is not None:
                scores.view(-1, heads, *scores.shape[1:]).add_(mask)
            share = scores.softmax(dim=-1)
            dropped = kept.view(share.shape).to(share.dtype).mul_(share).mul_(factor)
            mixed = torch.bmm(dropped, v.flatten(0, 1))
            out.copy_(mixed.view(q.shape).transpose(1, 2))
            saved += [q, k, v, share, kept]
        ctx.save_for_backward(*saved)
        ctx.layouts, ctx.numbers = (query_layout, layout), (scale, factor)
        ctx.biases = [mask is not None and mask.requires_grad for mask in masks]
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        (query_layout, layout), (scale, factor) = ctx.layouts, ctx.numbers
        saved, tokens = ctx.saved_tensors, layout.tokens
        grads = grad.new_empty(grad.shape), *grad.new_empty(2, tokens, *grad.shape[1:])
        mask_grads: list[Tensor | None] = []
        for number, (g, to_q, to_k, to_v) in enumerate(
            zip(
                query_layout.by_group(grad),
                query_layout.by_group(grads[0]),
                layout.by_group(grads[1]),
                layout.by_group(grads[2]),
                strict=True,
            )
        ):
            q, k, v, share, kept = saved[5 * number : 5 * number + 5]
            shape, flat = (q.shape, k.shape), [part.flatten(0, 1) for part in (q, k, v)]
            g = _heads_first(g).flatten(0, 1)
            factors = kept.view(share.shape).to(share.dtype).mul_(factor)
            to_v.copy_(torch.bmm((factors * share).mT, g).view(shape[1]).transpose(1, 2))
            inner = factors.mul_(torch.bmm(g, flat[2].mT))
            inner = torch._softmax_backward_data(inner, share, -1, share.dtype)
            if ctx.biases[number]:
                mask_grads.append(inner.view(-1, q.shape[1], *inner.shape[1:]).sum(dim=0))
            else:
                mask_grads.append(None)
            inner.mul_(scale)
            to_q.copy_(torch.bmm(inner, flat[1]).view(shape[0]).transpose(1, 2))
            to_k.copy_(torch.bmm(inner.mT, flat[0]).view(shape[1]).transpose(1, 2))
        return (*grads, *(5 * [None]), *mask_grads)


def _heads_first(group: Tensor) -> Tensor:
    """Transpose ``(rows, length, heads, d)`` to ``(rows, heads, length, d)``, contiguous."""
    return group.transpose(1, 2).contiguous()
