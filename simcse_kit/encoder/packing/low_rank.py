"""Linear layers with a LoRA adapter of peft (arXiv 2106.09685), in packed forward passes.

The output of such a layer is that of its base layer plus ``scaling * B A x``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["base_of", "is_supported", "low_rank_change", "whole_weight"]


def is_supported(layer: Any) -> bool:
    """Whether a layer is a plain linear map, or one with a single adapter without dropout.

    Dropout inside an adapter has to be drawn in the order of the model's own code.
    """
    if type(layer) is nn.Linear:
        return True
    if type(layer).__module__ != "peft.tuners.lora.layer" or type(layer).__name__ != "Linear":
        return False
    if len(layer.active_adapters) != 1 or layer.disable_adapters or layer.merged:
        return False
    name = layer.active_adapters[0]
    return (
        type(layer.base_layer) is nn.Linear
        and not layer.lora_variant
        and layer.lora_B[name].bias is None
        and getattr(layer.lora_dropout[name], "p", 0.0) == 0
    )


def base_of(layer: Any) -> nn.Linear:
    """Return the layer without its adapter."""
    base: nn.Linear = getattr(layer, "base_layer", layer)
    return base


def low_rank_change(layers: Sequence[Any], states: Tensor) -> Tensor | None:
    """Compute what the adapters of several layers with the same input add to their outputs.

    Args:
        layers: Layers, whose outputs are concatenated.
        states: Input ``(T, d)``.

    Returns:
        ``(T, sum of the widths)``; None if no layer has an adapter.
    """
    if all(type(layer) is nn.Linear for layer in layers):
        return None
    parts = []
    for layer in layers:
        if type(layer) is nn.Linear:
            parts.append(states.new_zeros(len(states), layer.out_features))
        else:
            down, up, scaling = _factors(layer)
            parts.append(F.linear(F.linear(states, down), up) * scaling)
    return torch.cat(parts, dim=1)


def whole_weight(layer: Any) -> Tensor:
    """Return the weight of a layer with its adapter added; without one, the weight itself."""
    if type(layer) is nn.Linear:
        return layer.weight
    down, up, scaling = _factors(layer)
    weight: Tensor = layer.base_layer.weight + (up @ down) * scaling
    return weight


def _factors(layer: Any) -> tuple[Tensor, Tensor, float]:
    name = layer.active_adapters[0]
    return layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name]
