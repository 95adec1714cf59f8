"""Forward passes of batches that cannot be packed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from simcse_kit.encoder.input_hook import Alter
from simcse_kit.encoder.packing.row_groups import Unpacked

__all__ = ["run_unpacked"]

Run = Callable[[Tensor, Tensor, Alter | None], Tensor]
"""Ids ``(n, L)``, mask ``(n, L)`` and a change of the first layer's input to vectors ``(n, d)``."""


def run_unpacked(
    run: Run,
    input_ids: Tensor,
    attention_mask: Tensor,
    alter: Alter | None,
    unpacked: Unpacked,
) -> Tensor:
    """Run a padded batch in as many forward passes as the model needs.

    Args:
        run: Forward pass and pooling of a padded batch.
        input_ids: ``(n, L)`` int64, padded on the right.
        attention_mask: ``(n, L)``, 1 for tokens, 0 for padding.
        alter: Function that changes the input of the first layer.
        unpacked: Which rows may share a forward pass.

    Returns:
        ``(n, d)``, in the order of the batch.
    """
    if unpacked is Unpacked.PADDED:
        return run(input_ids, attention_mask, alter)
    by_length: dict[int, list[int]] = {}
    for row, length in enumerate(attention_mask.sum(dim=1).tolist()):
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
