"""Linear maps in bfloat16 on a CPU, and whether they are faster there."""

from __future__ import annotations

import logging
import time
from functools import cache

import torch
from torch import nn

from simcse_kit.encoder.model import EncoderModel
from simcse_kit.encoder.packing.layers import Block, blocks_of
from simcse_kit.encoder.packing.linear import Linear, prepared

__all__ = ["bf16_blocks", "bf16_linear", "bf16_pays"]

logger = logging.getLogger(__name__)

_TOKENS = 512
_ROUNDS = 5
# A smaller gain is lost in the float32 parts of a model.
_LEAST_GAIN = 1.2


def bf16_blocks(encoder: EncoderModel, *, first_only: bool) -> list[Block] | None:
    """Prepare the layers of an encoder in bfloat16.

    Args:
        encoder: Encoder in evaluation mode, on a CPU.
        first_only: Whether the last layer is computed for the first token of each row only.

    Returns:
        The layers; None, after a warning, if bfloat16 is not supported or not faster.
    """
    kind = encoder.backbone.config.model_type
    make = bf16_linear
    blocks = blocks_of(encoder.backbone, make, first_only=first_only) if encoder.packs else None
    if blocks is None:
        logger.warning("bf16 is not supported for %s; using fp32", kind)
        return None
    linears = (part for part in encoder.backbone.modules() if isinstance(part, nn.Linear))
    largest = max(linears, key=lambda linear: linear.weight.numel())
    return blocks if bf16_pays(largest.in_features, largest.out_features) else None


def bf16_linear(*layers: nn.Linear, gelu: bool = False) -> Linear:
    """Compute linear maps in bfloat16; residuals, LayerNorm and attention stay in float32.

    Args:
        layers: See :func:`~simcse_kit.encoder.packing.linear.prepared`.
        gelu: Whether the exact GELU follows. The result is then bfloat16, because only another
            linear map reads it.
    """
    compute = prepared(*layers, gelu=gelu, dtype=torch.bfloat16)
    if gelu:
        return lambda states: compute(states.bfloat16())
    return lambda states: compute(states.bfloat16()).float()


@cache
def bf16_pays(width: int, inner: int) -> bool:
    """Measure whether bfloat16 is faster than float32 for one linear map.

    Some CPUs have instructions for bfloat16 and are slower with them. The measurement takes a few
    milliseconds, once per process; a warning is logged if bfloat16 is not faster.

    Args:
        width: Number of dimensions of the token states.
        inner: Number of dimensions inside the feed-forward layers.
    """
    layer, states = nn.Linear(width, inner), torch.zeros(_TOKENS, width)
    computations = (prepared(layer), bf16_linear(layer))
    best = [float("inf")] * len(computations)
    with torch.inference_mode():
        for _ in range(_ROUNDS):
            for number, compute in enumerate(computations):
                start = time.perf_counter()
                compute(states)
                best[number] = min(best[number], time.perf_counter() - start)
    gain = best[0] / best[1]
    if gain < _LEAST_GAIN:
        logger.warning(
            "bf16 is not faster than fp32 on this CPU (%.2f times the time); using fp32", 1 / gain
        )
    return gain >= _LEAST_GAIN
