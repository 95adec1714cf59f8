"""Embedding the rows of one batch with two encoders."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from simcse_kit.encoder.row_lengths import take_rows
from simcse_kit.utils.host_copies import host_copy, send, send_known

__all__ = ["embed_with_two"]


def embed_with_two(
    input_ids: Tensor,
    attention_mask: Tensor,
    views: Tensor,
    encode: Callable[[Tensor, Tensor], Tensor],
    encode_others: Callable[[Tensor, Tensor], Tensor],
    *,
    others: int,
) -> Tensor:
    """Embed the first views with one encoder and the other views with a second one.

    Args:
        input_ids: (R, L) int64.
        attention_mask: (R, L), 0 at padding.
        views: (R,) int64, the view number of every row.
        encode: The first encoder, a function from ids and mask of r rows to (r, d). An encoder
            without rows is not called.
        encode_others: The second encoder.
        others: The lowest view number for the second encoder.

    Returns:
        (R, d) in the order of the rows.

    Examples:
        >>> ids = torch.tensor([[1], [2], [3]])
        >>> views = torch.tensor([0, 1, 0])
        >>> embed_with_two(ids, ids, views, lambda i, _: i * 10, lambda i, _: -i, others=1)
        tensor([[10],
                [-2],
                [30]])
    """
    second = host_copy(views) >= others
    rows = [(~second).nonzero().squeeze(1), second.nonzero().squeeze(1)]
    parts = []
    for numbers, function in zip(rows, (encode, encode_others), strict=True):
        if len(numbers):
            part = send_known(numbers, input_ids.device)
            parts.append(function(input_ids[part], take_rows(attention_mask, part)))
    return torch.cat(parts)[send(torch.cat(rows).argsort(), input_ids.device)]
