"""Activation checkpointing: activations are recomputed in the backward pass, not kept."""

from __future__ import annotations

import logging
from typing import Any

from simcse_kit.config import RunConfig
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ConfigError
from simcse_kit.methods.common.base import Method
from simcse_kit.training.trainer_fields import RECOMPUTE

__all__ = ["recompute_activations", "wants_recompute"]

logger = logging.getLogger(__name__)


def wants_recompute(config: RunConfig) -> str | None:
    """Return the key of ``[trainer]`` that enables it; None if none does."""
    return next((key for key in RECOMPUTE if config.trainer.get(key)), None)


def recompute_activations(method: Method, key: str) -> None:
    """Make every trained encoder of a method keep only the inputs of its layers.

    The layers then run in the code of transformers, with padding, because what a layer recomputes
    must not depend on the position of packed rows in the forward pass. The gradients are the same,
    but the random numbers of dropout differ from those without this setting.

    Args:
        method: the method; its momentum copies, which have no gradient, do not change.
        key: the setting that enables it, for the message.

    Raises:
        ConfigError: the architecture does not support it.
    """
    for module in method.modules():
        if not isinstance(module, SentenceEncoder):
            continue
        backbone: Any = module.backbone
        if not any(weight.requires_grad for weight in backbone.parameters()):
            continue
        kind = backbone.config.model_type
        if not getattr(backbone, "supports_gradient_checkpointing", False):
            raise ConfigError(
                f"trainer.{key} = true: a {kind} cannot recompute its layers; leave it out, and "
                "use --memory-budget for large batches"
            )
        # Releases with the new name warn about the old one.
        enable = getattr(backbone, "activation_checkpointing_enable", None)
        (enable or backbone.gradient_checkpointing_enable)()
    logger.info("layers are recomputed in the backward pass: less memory, and slower steps")
