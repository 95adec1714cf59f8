"""The layers of an encoder in a precision below float32, kept while its weights stay."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch import nn

from simcse_kit.encoder.export.bundle import int8_instructions
from simcse_kit.encoder.forked_processes import PREPARING
from simcse_kit.encoder.model import EncoderModel
from simcse_kit.encoder.packing.layers import Block, blocks_of
from simcse_kit.encoder.quantization.bf16 import bf16_pays, lowered
from simcse_kit.encoder.quantization.calibration import calibrated_blocks
from simcse_kit.encoder.quantization.int8 import INT8_OPERATORS
from simcse_kit.errors import ConfigError

__all__ = ["Precision", "check_precision", "lower_blocks"]

logger = logging.getLogger(__name__)

Precision: TypeAlias = Literal["fp32", "bf16", "int8"]
"""In what the linear maps are computed; everything else stays in float32."""

# The x86 ones; elsewhere oneDNN has no fast way for unsigned bytes.
_INSTRUCTIONS = ("avx_vnni", "avx512_vnni", "amx_int8")

# Of a weight, every so manieth number is looked at to see whether it has changed.
_EVERY = 61

# Not an attribute of the encoder: what oneDNN has laid out can be neither copied nor pickled.
_Kept: TypeAlias = dict[tuple[Precision, bool], tuple[tuple[Any, ...], list[Block] | None]]
_kept: WeakKeyDictionary[EncoderModel, _Kept] = WeakKeyDictionary()


def check_precision(encoder: EncoderModel, precision: Precision) -> None:
    """Refuse a precision that cannot be used, before anything is computed.

    Raises:
        ConfigError: The encoder, the CPU or torch does not support the precision.
    """
    if precision == "fp32":
        return
    if encoder.engine is not None:
        raise ConfigError(
            f"precision {precision!r}: this encoder was exported and computes as it was written; "
            "leave precision away, or export it anew"
        )
    obstacle = _int8_obstacle(encoder) if precision == "int8" else None
    if obstacle is not None:
        raise ConfigError(f"precision 'int8': {obstacle}; take 'fp32' or 'bf16'")


def lower_blocks(
    encoder: EncoderModel,
    precision: Precision,
    rows: Sequence[Sequence[int]],
    *,
    first_only: bool,
) -> list[Block] | None:
    """The layers of an encoder in a precision, for :meth:`EncoderModel.forward_packed`.

    They are made at the first call, and again when the weights have changed since. In int8 the
    ranges of the activations come from the sentences of that first call: later calls agree with it.

    Args:
        encoder: in evaluation mode; :func:`check_precision` has passed.
        precision: not ``fp32``.
        rows: token ids of the sentences that are to be encoded, at least one.
        first_only: of the last layer only the first token of each row is wanted.

    Returns:
        The layers; None where float32 is to be taken, which a log line says.

    Raises:
        ConfigError: int8 does not serve the architecture.
    """
    # Threads that come at the same time use the ranges of the first one.
    with PREPARING:
        kept = _kept.setdefault(encoder, {})
        state = _state(encoder)
        found = kept.get((precision, first_only))
        if found is None or found[0] != state:
            if precision == "int8":
                blocks: list[Block] | None = calibrated_blocks(encoder, rows, first_only=first_only)
            else:
                blocks = _bf16_blocks(encoder, first_only)
            found = kept[precision, first_only] = (state, blocks)
        return found[1]


def _bf16_blocks(encoder: EncoderModel, first_only: bool) -> list[Block] | None:
    blocks = blocks_of(encoder.backbone, lowered, first_only=first_only) if encoder.packs else None
    if blocks is None:
        kind = encoder.backbone.config.model_type
        logger.warning("precision bf16 does not serve this encoder (%s): fp32 is used", kind)
        return None
    largest = max(_linears(encoder), key=lambda linear: linear.weight.numel())
    pays = encoder.device.type != "cpu" or bf16_pays(largest.in_features, largest.out_features)
    return blocks if pays else None


def _int8_obstacle(encoder: EncoderModel) -> str | None:
    if encoder.device.type != "cpu":
        return f"it is for CPUs, and the encoder is on {encoder.device}"
    kind = next(encoder.parameters()).dtype
    if kind != torch.float32:
        return f"it starts from float32 weights, and these are {str(kind).removeprefix('torch.')}"
    if not all(hasattr(torch.ops.onednn, name) for name in INT8_OPERATORS):
        return f"torch {torch.__version__} lacks oneDNN's int8 operators"
    here = int8_instructions()
    if here is not None and not set(here).intersection(_INSTRUCTIONS):
        return f"this CPU has none of the instructions {', '.join(_INSTRUCTIONS)}"
    return None


def _state(encoder: EncoderModel) -> tuple[Any, ...]:
    """Differs when a weight was exchanged or written to."""
    # TRAP: fused optimizers write without raising the version of a tensor. They change all of it,
    # so that some of its numbers tell, and reading them costs nothing.
    parts = [part.detach() for linear in _linears(encoder) for part in linear.parameters()]
    sums = [part.flatten()[::_EVERY].sum(dtype=torch.float64) for part in parts]
    return (*(part.data_ptr() for part in parts), *torch.stack(sums).tolist())


def _linears(encoder: EncoderModel) -> list[nn.Linear]:
    return [part for part in encoder.backbone.modules() if isinstance(part, nn.Linear)]
