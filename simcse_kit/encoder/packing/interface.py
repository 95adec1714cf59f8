"""Packed attention for every model that uses transformers' attention interface."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from simcse_kit.encoder.packing.attention import block_attention
from simcse_kit.encoder.packing.layout import Layout

__all__ = ["IMPLEMENTATION", "packed_rows"]

IMPLEMENTATION = "simcse_packed"

# Not an argument of the model: not every architecture hands unknown arguments down to attention.
_layout: ContextVar[Layout | None] = ContextVar("layout", default=None)


@contextmanager
def packed_rows(layout: Layout) -> Iterator[None]:
    """Inside, models with :data:`IMPLEMENTATION` take their one row for this packed batch."""
    token = _layout.set(layout)
    try:
        yield
    finally:
        _layout.reset(token)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **options: Any,
) -> tuple[Tensor, None]:
    layout = _layout.get()
    if layout is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, **options
        )
    causal = options.get("is_causal")
    output = block_attention(
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        layout,
        scale=query.shape[-1] ** -0.5 if scaling is None else scaling,
        dropout=dropout,
        causal=bool(getattr(module, "is_causal", True) if causal is None else causal),
        window=options.get("sliding_window"),
    )
    return output[None], None


def _mask(**options: Any) -> Tensor | None:
    return None if _layout.get() is not None else sdpa_mask(**options)


AttentionInterface.register(IMPLEMENTATION, _attention)
AttentionMaskInterface.register(IMPLEMENTATION, _mask)
