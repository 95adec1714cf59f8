"""Grouping of sentences into shards and chunks, and of token rows into forward passes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

__all__ = ["grouped", "length_sorted_batches", "pad_batch"]


def grouped(texts: Iterable[str], most: int, characters: int) -> Iterator[list[str]]:
    """Split texts into lists, in their order.

    Args:
        texts: Texts, read as needed.
        most: Maximum number of texts per list.
        characters: Total number of characters after which a list ends early.
    """
    group: list[str] = []
    length = 0
    for text in texts:
        group.append(text)
        length += len(text)
        if len(group) >= most or length >= characters:
            yield group
            group, length = [], 0
    if group:
        yield group


def length_sorted_batches(
    lengths: Sequence[int], *, token_budget: int, batch_size: int | None = None
) -> Iterator[list[int]]:
    """Group rows of similar length, longest first, to keep padding small.

    With the longest first, a batch that does not fit into memory fails at once, and the estimated
    time left is rather too long than too short.

    Args:
        lengths: Number of tokens of each row.
        token_budget: Maximum of ``rows * longest row`` per batch; a longer row gets a batch of its
            own.
        batch_size: Maximum number of rows per batch.

    Yields:
        The row numbers of one batch; every row occurs once.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    start = 0
    while start < len(order):
        rows = max(1, token_budget // max(1, lengths[order[start]]))
        if batch_size is not None:
            rows = min(rows, batch_size)
        yield order[start : start + rows]
        start += rows


def pad_batch(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Pad rows of token ids on the right.

    Returns:
        ``input_ids`` and ``attention_mask``, both ``(n, longest)`` int64 on the CPU.
    """
    longest = max(len(row) for row in rows)
    # The default device may be a different one.
    ids = torch.full((len(rows), longest), pad_id, dtype=torch.int64, device="cpu")
    mask = torch.zeros((len(rows), longest), dtype=torch.int64, device="cpu")
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row, dtype=torch.int64, device="cpu")
        mask[number, : len(row)] = 1
    return ids, mask
