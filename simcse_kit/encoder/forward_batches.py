"""Forward passes of batches: packed where the model allows it, else as its states demand."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from simcse_kit.encoder.forked_processes import PREPARING
from simcse_kit.encoder.input_hook import Alter, altered
from simcse_kit.encoder.packing.layout import MULTIPLE, pack
from simcse_kit.encoder.packing.row_groups import Batching, UnpackableError, Unpacked
from simcse_kit.encoder.pooling import LAYER_POOLINGS, pool
from simcse_kit.errors import ModelError

if TYPE_CHECKING:
    from simcse_kit.encoder.encoder import SentenceEncoder

__all__ = ["find_batching_once", "pooled_batch", "require_padding", "stop_packing"]

logger = logging.getLogger(__name__)


def find_batching_once(encoder: SentenceEncoder) -> Batching:
    """How the batches of an encoder run; tried at the first call.

    Raises:
        ModelError: the model gives no token states that can be used.
    """
    from simcse_kit.encoder.packing.probe import find_batching

    # A probe changes the attention of a model for a moment, and several threads may share it.
    with PREPARING:
        if encoder.known_batching is None:
            found = find_batching(encoder.backbone, encoder.tokenizer.pad_token_id)
            encoder.known_batching = found
        return encoder.known_batching


def stop_packing(encoder: SentenceEncoder, reason: UnpackableError) -> None:
    """Run all batches of an encoder unpacked from now on."""
    kind = encoder.backbone.config.model_type
    logger.info("%s %s: batches are padded, which is slower", kind, reason)
    encoder.known_batching = replace(encoder.batching, packed=False)


def require_padding(encoder: SentenceEncoder, what: str, remedy: str = "use another model") -> None:
    """Make sure that a model can run padded batches.

    Args:
        encoder: the encoder.
        what: what needs them, as the subject of a sentence.
        remedy: what to do where it cannot.

    Raises:
        ModelError: its states depend on the padding.
    """
    if encoder.batching.unpacked is not Unpacked.PADDED:
        raise ModelError(
            f"{what} runs padded batches, and the states of a {encoder.backbone.config.model_type} "
            f"depend on the padding; {remedy}"
        )


def pooled_batch(
    encoder: SentenceEncoder, input_ids: Tensor, attention_mask: Tensor, alter: Alter | None
) -> Tensor:
    """See :meth:`simcse_kit.encoder.encoder.SentenceEncoder.forward`; the head is included."""
    if encoder.packs:
        tokens, layout = pack(input_ids, attention_mask, multiple=MULTIPLE)
        try:
            with altered(encoder.backbone, alter, attention_mask, layout):
                return encoder.forward_packed(tokens, layout)[: len(input_ids)]
        except UnpackableError as error:
            stop_packing(encoder, error)
    pooled = _pooled_unpacked(
        encoder.backbone,
        input_ids,
        attention_mask,
        unpacked=encoder.batching.unpacked,
        pooling=encoder.pooling,
        place=None if encoder.template is None else encoder.template.place,
        alter=alter,
    )
    return pooled if encoder.head is None else encoder.head(pooled)


def _pooled_unpacked(
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
        alter: changes what the first layer gets, see :data:`simcse_kit.encoder.input_hook.Alter`.

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
