"""Rows of one batch through two encoders."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["embed_apart"]


def embed_apart(
    input_ids: Tensor,
    attention_mask: Tensor,
    others: Tensor,
    encode: Callable[[Tensor, Tensor], Tensor],
    encode_others: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Embed some rows with one encoder, the others with another.

    Args:
        input_ids: (R, L) int64.
        attention_mask: (R, L), 0 at padding.
        others: (R,) bool, the rows of ``encode_others``.
        encode: ids and mask of r rows to (r, d); not called for no rows.
        encode_others: the same for the other rows.

    Returns:
        (R, d) in the order of the rows.
    """
    rows = [(~others).nonzero().squeeze(1), others.nonzero().squeeze(1)]
    parts = [
        function(input_ids[part], attention_mask[part])
        for part, function in zip(rows, (encode, encode_others), strict=True)
        if len(part)
    ]
    return torch.cat(parts)[torch.cat(rows).argsort()]
