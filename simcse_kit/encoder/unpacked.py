"""Forward passes of batches that are not packed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from simcse_kit.encoder.alter import Alter, altered
from simcse_kit.encoder.packing.batching import Unpacked
from simcse_kit.encoder.pooling import LAYER_POOLINGS, pool

__all__ = ["pooled_unpacked"]


def pooled_unpacked(
    backbone: Any,
    input_ids: Tensor,
    attention_mask: Tensor,
    *,
    unpacked: Unpacked,
    pooling: str,
    place: int | None,
    alter: Alter | None,
) -> Tensor:
    """Token ids to pooled states.

    Args:
        backbone: the transformer.
        input_ids: ``(n, L)`` int64, padded on the right.
        attention_mask: ``(n, L)``, 1 for tokens, 0 for padding.
        unpacked: which rows may share a pass.
        pooling: one of :data:`simcse_kit.encoder.pooling.POOLINGS`.
        place: of the mask token, for pooling ``mask``.
        alter: changes what the first layer gets, see :data:`simcse_kit.encoder.alter.Alter`.

    Returns:
        ``(n, d)``.
    """
    if unpacked is Unpacked.PADDED:
        return _pooled(backbone, input_ids, attention_mask, pooling, place, alter)
    parts, groups = [], _groups(attention_mask, unpacked)
    for rows, length in groups:
        parts.append(
            _pooled(
                backbone,
                input_ids[rows, :length],
                attention_mask[rows, :length],
                pooling,
                place,
                _of_rows(alter, rows),
            )
        )
    order = torch.cat([rows for rows, _ in groups])
    return torch.cat(parts)[order.argsort()]


def _groups(attention_mask: Tensor, unpacked: Unpacked) -> list[tuple[Tensor, int]]:
    """``(rows, length)`` of each forward pass."""
    by_length: dict[int, list[int]] = {}
    for row, length in enumerate(attention_mask.sum(dim=1).tolist()):
        by_length.setdefault(int(length), []).append(row)
    lists = [
        (part, length)
        for length, rows in by_length.items()
        for part in ([rows] if unpacked is Unpacked.EQUAL_LENGTHS else [[row] for row in rows])
    ]
    return [(torch.tensor(rows, device=attention_mask.device), length) for rows, length in lists]


def _pooled(
    backbone: Any,
    input_ids: Tensor,
    attention_mask: Tensor,
    pooling: str,
    place: int | None,
    alter: Alter | None,
) -> Tensor:
    layers = pooling in LAYER_POOLINGS
    with altered(backbone, alter, attention_mask):
        output = backbone(
            input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=layers
        )
    states = output.hidden_states if layers else (output.last_hidden_state,)
    return pool(pooling, states, attention_mask, place)


def _of_rows(alter: Alter | None, rows: Tensor) -> Alter | None:
    """``alter`` for a part of the batch, whose rows have other numbers there."""
    if alter is None:
        return None
    return lambda states, numbers: alter(states, rows[numbers])
