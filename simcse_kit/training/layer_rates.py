"""Frozen weights and layer-wise learning rates of the transformers of a run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from simcse_kit.encoder.fewer_layers import list_of_layers
from simcse_kit.encoder.model import EncoderModel
from simcse_kit.errors import ConfigError

__all__ = ["freeze_weights", "scale_rates"]

_EMBEDDINGS = "embeddings"


def freeze_weights(encoder: EncoderModel, names: Sequence[str]) -> None:
    """Exclude parts of the transformer from training.

    Frozen weights get no gradient, no state in the optimizer and no weight decay. Their dropout
    stays active.

    Args:
        encoder: the encoder; copies that a method makes of it are frozen too.
        names: ``embeddings``, a layer such as ``layers.0``, or a range such as ``layers.0-5``.

    Raises:
        ConfigError: a name is unknown, or a layer does not exist; the message lists the names.
        ModelError: the transformer has no list of layers.

    Examples:
        >>> from simcse_kit import SentenceEncoder
        >>> encoder = SentenceEncoder.load("mini")
        >>> freeze_weights(encoder, ["embeddings", "layers.0-2"])
        >>> sorted({name[:15] for name, p in encoder.named_parameters() if p.requires_grad})
        ['backbone.encode']
    """
    sections = _sections(encoder.backbone, "training.freeze")
    for name in names:
        for chosen in _named(name, len(sections) - 1):
            for weight in sections[chosen]:
                weight.requires_grad_(False)


def scale_rates(
    optimizer: torch.optim.Optimizer, model: nn.Module, decay: float | None
) -> torch.optim.Optimizer:
    """Give lower layers of all transformers in ``model`` a lower learning rate.

    In a transformer of L layers, layer l (from 0) gets the rate times ``decay ** (L - 1 - l)``, and
    the embeddings the rate times ``decay ** L``: discriminative fine-tuning in "How to Fine-Tune
    BERT for Text Classification?" (arXiv 1905.05583). ELECTRA does the same with one
    more factor, since its top is the layer of the task:
    https://github.com/google-research/electra/blob/ac8d487dcfd98b690a828fc27d6841f270409b29/model/optimization.py

    Args:
        optimizer: an optimizer without state; its groups are divided by rate, highest first.
        model: the trained module.
        decay: factor from each layer to the one below, in (0, 1]; None changes nothing.

    Returns:
        The optimizer.

    Raises:
        ModelError: a transformer has no list of layers.
    """
    if decay is None:
        return optimizer
    factors: dict[int, float] = {}
    for module in model.modules():
        if isinstance(module, EncoderModel):
            sections = list(_sections(module.backbone, "training.layer_decay").values())
            for height, weights in enumerate(sections):
                for weight in weights:
                    factors[id(weight)] = decay ** (len(sections) - 1 - height)
    groups: list[dict[str, Any]] = []
    for group in optimizer.param_groups:
        by_factor: dict[float, list[nn.Parameter]] = {}
        for weight in group["params"]:
            by_factor.setdefault(factors.get(id(weight), 1.0), []).append(weight)
        groups += [
            {**group, "params": weights, "lr": group["lr"] * factor}
            for factor, weights in by_factor.items()
        ]
    # The log shows the rate of the first group.
    optimizer.param_groups = sorted(groups, key=lambda group: -group["lr"])
    return optimizer


def _sections(backbone: Any, setting: str) -> dict[str, list[nn.Parameter]]:
    """Divide the weights into ``embeddings``, ``layers.0``, ``layers.1`` and so on, in order.

    What comes after the layers, such as a last LayerNorm, is in no section.
    """
    depth = int(getattr(backbone.config, "num_hidden_layers", 0) or 0)
    layers = list_of_layers(backbone, depth, setting)[2]
    found: dict[str, list[nn.Parameter]] = {_EMBEDDINGS: []}
    found |= {f"layers.{n}": list(layer.parameters()) for n, layer in enumerate(layers)}
    inside = {id(weight) for weights in found.values() for weight in weights}
    # Models define their modules in the order of the forward pass.
    for weight in backbone.parameters():
        if id(weight) in inside:
            break
        found[_EMBEDDINGS].append(weight)
    return found


def _named(name: str, depth: int) -> list[str]:
    """Return the sections that a name of ``training.freeze`` means."""
    if name == _EMBEDDINGS:
        return [name]
    match = re.fullmatch(r"layers\.([0-9]{1,4})(?:-([0-9]{1,4}))?", name)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if not first <= last < depth:
        raise ConfigError(
            f"training.freeze has {name!r}; allowed for this model: embeddings, layers.0 to "
            f"layers.{depth - 1}, and ranges such as layers.0-{depth - 1}"
        )
    return [f"layers.{number}" for number in range(first, last + 1)]
