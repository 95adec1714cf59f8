"""Probe of a model: whether its batches can be packed or padded without changing the states.

The reference is the loaded model on a single row without padding.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from simcse_kit.encoder.backbone import position_limit
from simcse_kit.encoder.batch_plan import pad_batch
from simcse_kit.encoder.device import usual_state
from simcse_kit.encoder.packing.layers import blocks_of
from simcse_kit.encoder.packing.layout import (
    AttentionOptionsError,
    Batching,
    Layout,
    UnpackableError,
    Unpacked,
    pack_rows,
)
from simcse_kit.encoder.packing.linear import live
from simcse_kit.encoder.packing.run import packed_states
from simcse_kit.encoder.static import StaticBackbone
from simcse_kit.errors import ModelError

__all__ = ["find_batching"]

logger = logging.getLogger(__name__)

# Largest difference of a token's state, relative to its norm; in half precision, in rounding steps.
_TOLERANCE = 1e-4
_STEPS = 8
_LONG, _SHORT = 24, 2


def find_batching(backbone: Any, pad_id: int) -> Batching:
    """Find the fastest way to run batches in which every row has the states that it has alone.

    The families of :func:`~simcse_kit.encoder.packing.layers.blocks_of` are known to pack. Any
    other model runs two rows alone, packed and padded. If it cannot pack, the reason is logged, and
    the model keeps its attention.

    Args:
        backbone: Transformer.
        pad_id: Token id of the padding.

    Raises:
        ModelError: The model does not give one state per token, or different states each time.
    """
    if isinstance(backbone, StaticBackbone):
        return Batching(packed=True)
    own_class = type(backbone).__module__.startswith("transformers.models.")
    if own_class and blocks_of(backbone, live) is not None:
        return Batching(packed=True)
    with _at_rest(backbone):
        rows = _rows(backbone)
        alone = [_alone(backbone, row) for row in rows]
        attention = backbone.config._attn_implementation
        reason = _why_not_packed(backbone, rows, alone)
        if reason and backbone.config._attn_implementation != attention:
            alone = [_alone(backbone, row) for row in rows]
        if _agree(_together(backbone, rows, pad_id), alone):
            unpacked = Unpacked.PADDED
        else:
            unpacked = _unpacked(backbone, rows[0], alone[0])
    kind = backbone.config.model_type
    if reason and unpacked is Unpacked.PADDED:
        logger.info("%s %s: batches are padded, which is slower", kind, reason)
    if unpacked is not Unpacked.PADDED:
        logger.warning(
            "the vectors of %s depend on the padding: each forward pass takes %s, which is slower",
            kind,
            unpacked.value,
        )
    return Batching(packed=not reason, unpacked=unpacked)


@contextmanager
def _at_rest(backbone: Any) -> Iterator[None]:
    """Disable dropout, gradients and inference mode inside the block."""
    modes = [(part, part.training) for part in backbone.modules()]
    device = next(backbone.parameters()).device
    backbone.eval()
    try:
        with torch.inference_mode(False), torch.no_grad(), usual_state(device):
            yield
    finally:
        for part, training in modes:
            part.training = training


def _rows(backbone: Any) -> list[list[int]]:
    """Make a long and a short row of ordinary tokens, spread over the vocabulary."""
    words = backbone.get_input_embeddings().num_embeddings
    special = {
        value
        for name, value in vars(backbone.config).items()
        if name.endswith("token_id") and isinstance(value, int)
    }
    long = min(_LONG, position_limit(backbone) or _LONG)
    wanted = long + _SHORT
    ids = [number for number in range(1, words) if number not in special]
    if len(ids) < wanted:
        ids = list(range(words)) * wanted
    chosen = [ids[(place * 7919 + 5) % len(ids)] for place in range(wanted)]
    return [chosen[:long], chosen[long:]]


def _alone(backbone: Any, row: Sequence[int]) -> Tensor:
    """Compute the states ``(L, d)`` of a row in a forward pass of its own.

    Raises:
        ModelError: The model does not give one state per token.
    """
    kind = backbone.config.model_type
    try:
        states = _run(backbone, [row])[0]
    # An unknown architecture may raise any error.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(
            f"{kind} gives no token states for token ids and attention mask alone "
            f"({reason:.200}); a text encoder or decoder is needed"
        ) from error
    wanted = (len(row), int(backbone.config.hidden_size))
    if tuple(states.shape) != wanted:
        raise ModelError(
            f"{kind} gives states of shape {tuple(states.shape)} for a text of {len(row)} tokens, "
            f"not {wanted}; a text encoder or decoder with one state per token is needed"
        )
    if not bool(states.isfinite().all()):
        raise ModelError(f"{kind} gives token states with NaN or infinity")
    return states


def _run(backbone: Any, rows: Sequence[Sequence[int]], pad_id: int = 0) -> Tensor:
    """Compute the states ``(R, L, d)`` of rows, padded if their lengths differ."""
    device = next(backbone.parameters()).device
    ids, mask = (part.to(device) for part in pad_batch(rows, pad_id))
    states: Tensor = backbone(input_ids=ids, attention_mask=mask).last_hidden_state
    return states


def _together(backbone: Any, rows: Sequence[Sequence[int]], pad_id: int = 0) -> list[Tensor] | None:
    """Compute the states of rows in one batch; None if the model cannot do that."""
    try:
        states = _run(backbone, rows, pad_id)
    except Exception as error:
        logger.debug("a batch failed: %s", error)
        return None
    if states.shape[:2] != (len(rows), max(map(len, rows))):
        return None
    return [part[: len(row)] for part, row in zip(states, rows, strict=True)]


def _unpacked(backbone: Any, row: list[int], alone: Tensor) -> Unpacked:
    """Find which rows of a model can share a pass if its states depend on the padding."""
    other = row[::-1]
    if _agree(_together(backbone, [row, other]), [alone, _alone(backbone, other)]):
        return Unpacked.EQUAL_LENGTHS
    if _agree([_alone(backbone, row)], [alone]):
        return Unpacked.SINGLE_ROWS
    raise ModelError(
        f"{backbone.config.model_type} gives different states each time for the same text, so its "
        "vectors cannot be compared. Set a seed in its configuration if it has one"
    )


def _why_not_packed(
    backbone: Any, rows: Sequence[Sequence[int]], alone: Sequence[Tensor]
) -> str | None:
    """Set a model up for packed batches, and return the reason if that is not possible.

    A model whose attention takes options that sdpa ignores runs with eager attention afterwards.
    """
    device = alone[0].device
    tokens, layout = pack_rows(rows, device)

    def differs() -> str | None:
        packed = _split(packed_states(backbone, tokens, layout)[-1], layout)
        return None if _agree(packed, alone) else "gives different vectors if packed"

    if blocks_of(backbone, live) is not None:
        return differs()
    if not getattr(backbone, "_supports_attention_backend", False):
        return "does not use transformers' attention interface"
    if getattr(backbone.config, "attention_chunk_size", None):
        return "attends in chunks"
    # Outside packed batches, the packed attention falls back to sdpa and to nothing else.
    if backbone.config._attn_implementation != "sdpa":
        return f"runs with {backbone.config._attn_implementation!r} attention only"
    from simcse_kit.encoder.packing.hf_attention import IMPLEMENTATION

    ignored = False
    before = [(config, config._attn_implementation_internal) for config in _configs(backbone)]
    try:
        backbone.set_attn_implementation(IMPLEMENTATION)
        # TRAP: if the class does not support it, transformers keeps the old one and warns.
        if backbone.config._attn_implementation != IMPLEMENTATION:
            reason: str | None = "supports no other attention in this release of transformers"
        else:
            reason = differs()
    except UnpackableError as error:
        reason = str(error)
        # TRAP: older releases of transformers run such models with sdpa, which ignores unknown
        # options, such as the softcap of Gemma 2.
        options = error.names if isinstance(error, AttentionOptionsError) else []
        ignored = not signature(sdpa_attention_forward).parameters.keys() >= set(options)
    # An unknown architecture may raise any error; padded batches remain possible.
    except Exception as error:
        logger.debug("packing failed: %s", error)
        reason = "fails on packed batches"
    if reason:
        for config, implementation in before:
            config._attn_implementation_internal = implementation
        if ignored:
            backbone.set_attn_implementation("eager")
    return reason


def _split(tokens: Tensor, layout: Layout) -> list[Tensor]:
    """Split ``(T, d)`` into the states of each row, in the order of the batch."""
    lying = [row for group in layout.by_group(tokens) for row in group]
    placed = sorted(zip(layout.order.tolist(), lying, strict=True), key=lambda pair: pair[0])
    return [row for _, row in placed]


def _configs(backbone: Any) -> list[PretrainedConfig]:
    """Collect the configurations of a model and of its submodules, each once."""
    found: dict[int, PretrainedConfig] = {}
    waiting = [getattr(part, "config", None) for part in backbone.modules()]
    while waiting:
        config = waiting.pop()
        if isinstance(config, PretrainedConfig) and id(config) not in found:
            found[id(config)] = config
            waiting += [getattr(config, name, None) for name in config.sub_configs]
    return list(found.values())


def _agree(found: Sequence[Tensor] | None, expected: Sequence[Tensor]) -> bool:
    """Whether states differ by rounding only."""
    if found is None:
        return False
    return all(_same(one, other) for one, other in zip(found, expected, strict=True))


def _same(found: Tensor, expected: Tensor) -> bool:
    tolerance = max(_TOLERANCE, _STEPS * torch.finfo(expected.dtype).eps)
    found, expected = found.double(), expected.double()
    lengths = expected.norm(dim=1)
    return bool(((found - expected).norm(dim=1) <= tolerance * lengths).all())
