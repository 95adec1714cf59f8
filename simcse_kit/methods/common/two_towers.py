"""Embedding the rows of one batch with two encoders."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["embed_with_two"]


def embed_with_two(
    input_ids: Tensor,
    attention_mask: Tensor,
    others: Tensor,
    encode: Callable[[Tensor, Tensor], Tensor],
    encode_others: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Embed some rows with one encoder and the others with a second one.

    Args:
        input_ids: (R, L) int64.
        attention_mask: (R, L), 0 at padding.
        others: (R,) bool, the rows for ``encode_others``.
        encode: The first encoder, a function from ids and mask of r rows to (r, d). An encoder
            without rows is not called.
        encode_others: The second encoder.

    Returns:
        (R, d) in the order of the rows.

    Examples:
        >>> ids = torch.tensor([[1], [2], [3]])
        >>> second = torch.tensor([False, True, False])
        >>> embed_with_two(ids, ids, second, lambda i, _: i * 10, lambda i, _: -i).flatten()
        tensor([10, -2, 30])
    """
    rows = [(~others).nonzero().squeeze(1), others.nonzero().squeeze(1)]
    parts = [
        function(input_ids[part], attention_mask[part])
        for part, function in zip(rows, (encode, encode_others), strict=True)
        if len(part)
    ]
    return torch.cat(parts)[torch.cat(rows).argsort()]
