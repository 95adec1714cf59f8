"""A shallower encoder from some of the layers of a transformer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from simcse_kit.encoder.model import EncoderModel
from simcse_kit.errors import ConfigError, ModelError

__all__ = ["keep_layers", "list_of_layers"]


def keep_layers(model: EncoderModel, numbers: Sequence[int]) -> None:
    """Keep some layers of the transformer, in their order, and drop the others.

    The configuration is changed too, so that a saved folder opens everywhere.

    Args:
        model: Encoder with weights; it is changed.
        numbers: Numbers of the layers from 0, ascending.

    Raises:
        ConfigError: A layer does not exist, or the numbers are not ascending.
        ModelError: The transformer has no list of layers that can be shortened.

    Examples:
        >>> from simcse_kit import SentenceEncoder
        >>> encoder = SentenceEncoder.load("mini")
        >>> keep_layers(encoder, [0, 3])
        >>> encoder.backbone.config.num_hidden_layers, encoder.encode("A dog runs.").shape
        (2, (256,))
    """
    model.require_weights()
    config = model.backbone.config
    depth = int(getattr(config, "num_hidden_layers", 0) or 0)
    chosen = list(numbers)
    shown = f"model.keep_layers = {chosen}"
    if not chosen or chosen != sorted(set(chosen)) or not 0 <= chosen[0] <= chosen[-1] < depth:
        raise ConfigError(
            f"{shown}: the model has {depth} layers; give ascending numbers from 0 to {depth - 1}"
        )
    parent, name, layers = list_of_layers(model.backbone, depth, shown)
    for place, number in enumerate(chosen):
        if _shapes(layers[place]) != _shapes(layers[number]):
            raise ModelError(
                f"{shown}: layer {number} of a {config.model_type} has other weights than layer "
                f"{place}, whose place it would take; keep layers 0 to {len(chosen) - 1}"
            )
    kept = nn.ModuleList(layers[number] for number in chosen)
    for place, layer in enumerate(kept):
        for module in layer.modules():
            if isinstance(getattr(module, "layer_idx", None), int):
                module.layer_idx = place  # type: ignore[assignment]
    setattr(parent, name, kept)
    for key, value in list(vars(config).items()):
        if isinstance(value, list) and len(value) == depth and "layer" in key:
            setattr(config, key, [value[number] for number in chosen])
    config.num_hidden_layers = len(chosen)


def list_of_layers(backbone: nn.Module, depth: int, setting: str) -> tuple[Any, str, nn.ModuleList]:
    """Find the only list of ``depth`` layers of a transformer.

    Args:
        backbone: Transformer.
        depth: Number of layers.
        setting: Setting that needs the list, for the error message.

    Returns:
        The parent of the list, its name there, and the list.

    Raises:
        ModelError: The layers share weights, or are not in one list.
    """
    found = [
        (parent, name, child)
        for parent in backbone.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.ModuleList) and len(child) == depth
    ]
    # A list inside a layer may have the same length.
    inner = {id(part) for _, _, layers in found for layer in layers for part in layer.modules()}
    outer = [item for item in found if id(item[2]) not in inner]
    if len(outer) != 1:
        kind = getattr(backbone.config, "model_type", type(backbone).__name__)
        raise ModelError(
            f"{setting}: a {kind} has no list of {depth} layers with weights of their own; leave "
            "the setting out, or use another model"
        )
    return outer[0]


def _shapes(layer: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(part.shape) for name, part in layer.state_dict().items()}
