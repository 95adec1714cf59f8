"""Grouping of sentences into shards and chunks, and of token rows into forward passes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from simcse_kit.encoder.input_hook import Alter
from simcse_kit.encoder.packing.layout import Unpacked
from simcse_kit.encoder.row_lengths import lengths_of

__all__ = ["grouped", "length_sorted_batches", "pad_batch", "run_unpacked"]


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


def run_unpacked(
    run: Callable[[Tensor, Tensor, Alter | None], Tensor],
    input_ids: Tensor,
    attention_mask: Tensor,
    alter: Alter | None,
    unpacked: Unpacked,
) -> Tensor:
    """Run a padded batch in as many forward passes as the model needs.

    Args:
        run: Forward pass and pooling of a padded batch: ids and mask ``(n, L)`` to ``(n, d)``.
        input_ids: ``(n, L)`` int64, padded on the right.
        attention_mask: ``(n, L)``, 1 for tokens, 0 for padding.
        alter: Function that changes the input of the first layer.
        unpacked: Which rows may share a forward pass.
    """
    if unpacked is Unpacked.PADDED:
        return run(input_ids, attention_mask, alter)
    by_length: dict[int, list[int]] = {}
    for row, length in enumerate(lengths_of(attention_mask)):
        by_length.setdefault(int(length), []).append(row)
    parts, order = [], []
    for length, numbers in by_length.items():
        single = unpacked is Unpacked.SINGLE_ROWS
        for group in [[number] for number in numbers] if single else [numbers]:
            rows = torch.tensor(group, device=attention_mask.device)
            parts.append(
                run(input_ids[rows, :length], attention_mask[rows, :length], _of_rows(alter, rows))
            )
            order.append(rows)
    return torch.cat(parts)[torch.cat(order).argsort()]


def _of_rows(alter: Alter | None, rows: Tensor) -> Alter | None:
    """Adapt ``alter`` to a part of the batch, in which the rows have other numbers."""
    if alter is None:
        return None
    return lambda states, numbers: alter(states, rows[numbers])
