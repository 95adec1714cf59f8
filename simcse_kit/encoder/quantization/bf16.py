"""Linear maps in bfloat16, and whether they gain anything on this machine."""

from __future__ import annotations

import logging
import time
from functools import cache

import torch
from torch import nn

from simcse_kit.encoder.packing.linear import Linear, prepared

__all__ = ["bf16_pays", "lowered"]

logger = logging.getLogger(__name__)

_TOKENS = 512
_ROUNDS = 5
# Below this the rest of a model eats the gain up.
_LEAST_GAIN = 1.2


def lowered(*layers: nn.Linear, gelu: bool = False) -> Linear:
    """Linear maps in bfloat16; residuals, LayerNorm and attention stay in float32.

    Args:
        layers: see :func:`~simcse_kit.encoder.packing.linear.prepared`.
        gelu: see there; the result is then bfloat16, since only another product takes it.
    """
    compute = prepared(*layers, gelu=gelu, dtype=torch.bfloat16)
    if gelu:
        return lambda states: compute(states.bfloat16())
    return lambda states: compute(states.bfloat16()).float()


@cache
def bf16_pays(width: int, inner: int) -> bool:
    """Whether bfloat16 products of an encoder's own sizes are faster here than those in float32.

    Some CPUs have instructions for bfloat16 and are slower with them. It is measured, in a few
    milliseconds, once a process; where it does not pay, a log line says so.

    Args:
        width: of the token states.
        inner: of the feed-forward layers.
    """
    layer, states = nn.Linear(width, inner), torch.zeros(_TOKENS, width)
    ways = (prepared(layer), lowered(layer))
    best = [float("inf")] * len(ways)
    with torch.inference_mode():
        for _ in range(_ROUNDS):
            for way, compute in enumerate(ways):
                start = time.perf_counter()
                compute(states)
                best[way] = min(best[way], time.perf_counter() - start)
    gain = best[0] / best[1]
    if gain < _LEAST_GAIN:
        logger.warning(
            "precision bf16: its products take %.2f of the time of fp32 on this CPU, which is no "
            "gain: fp32 is used",
            1 / gain,
        )
    return gain >= _LEAST_GAIN
