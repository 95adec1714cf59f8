"""Which sentences go together: into a forward pass, into a chunk, into a shard."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

__all__ = ["grouped", "length_sorted_batches", "pad_batch"]


def grouped(texts: Iterable[str], most: int, characters: int) -> Iterator[list[str]]:
    """Lists of texts in their order, so many at most, each ended by so many characters as well."""
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
    """Group rows of like length, longest first, so that little is padded.

    Longest first means that a batch too large for the memory fails at once, and that the estimate
    of the time left errs on the safe side.

    Args:
        lengths: tokens of each row.
        token_budget: largest ``rows * longest row`` of a batch; a single longer row goes alone.
        batch_size: largest number of rows of a batch.

    Yields:
        Row numbers; every row once.
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
    """Pad on the right.

    Returns:
        ``input_ids`` and ``attention_mask``, both ``(n, longest)`` int64 on the CPU.
    """
    longest = max(len(row) for row in rows)
    # The default device may be another.
    ids = torch.full((len(rows), longest), pad_id, dtype=torch.int64, device="cpu")
    mask = torch.zeros((len(rows), longest), dtype=torch.int64, device="cpu")
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row, dtype=torch.int64, device="cpu")
        mask[number, : len(row)] = 1
    return ids, mask
