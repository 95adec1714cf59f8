"""Cache of the weights of an encoder in other number formats, valid until the weights change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch import nn

from simcse_kit.encoder import accelerator
from simcse_kit.encoder.export.bundle import int8_instructions
from simcse_kit.encoder.forked_processes import PREPARING
from simcse_kit.encoder.model import EncoderModel
from simcse_kit.encoder.packing.layers import Block
from simcse_kit.encoder.quantization.bf16 import bf16_blocks
from simcse_kit.encoder.quantization.calibration import calibrated_blocks
from simcse_kit.encoder.quantization.half import (
    HalfEncoder,
    half_backbone,
    half_obstacle,
    require_half,
    weights_state,
)
from simcse_kit.encoder.quantization.int8 import INT8_OPERATORS
from simcse_kit.errors import ConfigError

__all__ = ["Precision", "check_precision", "clear_cache", "half_encoder", "lower_blocks"]

Precision: TypeAlias = Literal["fp32", "bf16", "fp16", "int8"]
"""Number format: of the linear maps on a CPU, of the whole transformer on an accelerator."""

# x86 instructions. On other CPUs oneDNN has no fast code for unsigned bytes.
_INSTRUCTIONS = ("avx_vnni", "avx512_vnni", "amx_int8")

# Stride at which weights are sampled to detect changes.
_STRIDE = 61

# Not an attribute of the encoder: weights in oneDNN's layout can be neither copied nor pickled.
_Entry: TypeAlias = tuple[tuple[Any, ...], Any]  # state of the weights, layers or transformer
_cache: WeakKeyDictionary[EncoderModel, dict[tuple[Precision, bool], _Entry]] = WeakKeyDictionary()


def clear_cache() -> None:
    """Forget the prepared weights of all encoders; the next use prepares them again."""
    _cache.clear()


def check_precision(encoder: EncoderModel, precision: Precision) -> None:
    """Refuse a precision that cannot be used, before anything is computed.

    Raises:
        ConfigError: The encoder, its device or torch does not support the precision.
    """
    if precision == "fp32":
        return
    if encoder.engine is not None:
        raise ConfigError(
            f"precision {precision!r}: this encoder was exported, and its precision is fixed; "
            "omit the precision, or export the model again"
        )
    obstacle, others = None, "'fp32' or 'bf16'"
    if precision == "int8":
        obstacle = _int8_obstacle(encoder)
    elif accelerator.is_accelerator(encoder.device):
        obstacle, others = half_obstacle(precision, encoder.device), "'fp16' or 'fp32'"
    elif precision == "fp16":
        obstacle = "it runs on GPUs only, and the encoder is on the CPU"
    if obstacle is not None:
        raise ConfigError(f"precision {precision!r}: {obstacle}; use {others}")


def lower_blocks(
    encoder: EncoderModel,
    precision: Precision,
    rows: Sequence[Sequence[int]],
    *,
    first_only: bool,
) -> list[Block] | None:
    """Prepare the layers of an encoder in a precision, for :meth:`EncoderModel.forward_packed`.

    The layers are cached until the weights change. For int8 the sentences of the first call set
    the ranges of the activations, so that later calls give the same vectors.

    Args:
        encoder: Encoder in evaluation mode, accepted by :func:`check_precision`.
        precision: ``bf16`` or ``int8``.
        rows: Token ids of the sentences to encode, at least one.
        first_only: Whether the last layer is computed for the first token of each row only.

    Returns:
        The layers; None, after a warning, if float32 is to be used.

    Raises:
        ConfigError: The architecture does not support int8.
    """

    def make() -> list[Block] | None:
        if precision == "int8":
            return calibrated_blocks(encoder, rows, first_only=first_only)
        return bf16_blocks(encoder, first_only=first_only)

    blocks: list[Block] | None = _cached(encoder, (precision, first_only), _state, make)
    return blocks


def half_encoder(encoder: EncoderModel, precision: Precision) -> HalfEncoder:
    """Make an encoder with the same pooling and head, and with its transformer in half precision.

    The transformer is cached until the weights change.

    Args:
        encoder: Encoder on an accelerator, accepted by :func:`check_precision`.
        precision: ``bf16`` or ``fp16``.

    Raises:
        ConfigError: The architecture does not support the precision.
    """

    def make() -> Any:
        backbone = half_backbone(encoder.backbone, precision)
        require_half(HalfEncoder(encoder, backbone), precision)
        return backbone

    def state(encoder: EncoderModel) -> tuple[Any, ...]:
        return weights_state(encoder.backbone)

    backbone = _cached(encoder, (precision, False), state, make)
    return HalfEncoder(encoder, backbone)


def _cached(
    encoder: EncoderModel,
    key: tuple[Precision, bool],
    state_of: Callable[[EncoderModel], tuple[Any, ...]],
    make: Callable[[], Any],
) -> Any:
    """Return what ``make`` returned for these weights and this key, or call it."""
    # Threads that arrive at the same time use the ranges of int8 of the first one.
    with PREPARING:
        entries = _cache.setdefault(encoder, {})
        state = state_of(encoder)
        found = entries.get(key)
        if found is None or found[0] != state:
            entries.pop(key, None)  # before the memory for another one is needed
            found = None
            found = entries[key] = (state, make())
        return found[1]


def _int8_obstacle(encoder: EncoderModel) -> str | None:
    """Return why int8 cannot be used on this machine; None if it can."""
    if encoder.device.type != "cpu":
        return f"it runs on CPUs only, and the encoder is on {encoder.device}"
    kind = next(encoder.parameters()).dtype
    if kind != torch.float32:
        return f"it needs float32 weights, and these are {str(kind).removeprefix('torch.')}"
    if not all(hasattr(torch.ops.onednn, name) for name in INT8_OPERATORS):
        return f"torch {torch.__version__} lacks oneDNN's int8 operators"
    here = int8_instructions()
    if here is not None and not set(here).intersection(_INSTRUCTIONS):
        return f"this CPU has none of the instructions {', '.join(_INSTRUCTIONS)}"
    return None


def _state(encoder: EncoderModel) -> tuple[Any, ...]:
    """Return a value that differs after a weight was replaced or written to."""
    # TRAP: fused optimizers write without raising the version of a tensor. They change all of it,
    # so reading a sample of the numbers is enough, and costs nothing.
    linears = [part for part in encoder.backbone.modules() if isinstance(part, nn.Linear)]
    parts = [part.detach() for linear in linears for part in linear.parameters()]
    sums = [part.flatten()[::_STRIDE].sum(dtype=torch.float64) for part in parts]
    return (*(part.data_ptr() for part in parts), *(torch.stack(sums).tolist() if sums else ()))
