"""Activations that are computed again in the backward pass, in place of being kept."""

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
    """The key of ``[trainer]`` that asks for it; None where none does."""
    return next((key for key in RECOMPUTE if config.trainer.get(key)), None)


def recompute_activations(method: Method, key: str) -> None:
    """Have every trained encoder of a method keep the inputs of its layers only.

    The layers then run in the model's own code, with padding: what a layer recomputes must not
    depend on where packed rows lay in the forward pass. The gradients are the same; with dropout
    other random numbers are drawn than without this setting.

    Args:
        method: built; its momentum copies, which have no gradient, stay as they are.
        key: the setting that asks for it, for the message.

    Raises:
        ConfigError: the architecture cannot do it.
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
        # The old name warns in the releases that have the new one.
        enable = getattr(backbone, "activation_checkpointing_enable", None)
        (enable or backbone.gradient_checkpointing_enable)()
    logger.info("layers are recomputed in the backward pass: less memory, and slower steps")
