"""Compilation of the layers of all encoders of a method, for GPUs."""

from __future__ import annotations

import logging

from simcse_kit.encoder.model import EncoderModel
from simcse_kit.encoder.packing.layers import blocks_of
from simcse_kit.encoder.packing.linear import live
from simcse_kit.methods.common.base import Method

__all__ = ["compile_layers"]

logger = logging.getLogger(__name__)


def compile_layers(method: Method) -> None:
    """Let torch compile what follows attention in each layer, at the first step.

    The random numbers stay the same. Layers of families that run in transformers' code, and layers
    with another activation than the exact GELU, are not compiled; a warning says so.
    """
    for encoder in method.modules():
        if isinstance(encoder, EncoderModel):
            encoder.compiled = True
            blocks = blocks_of(encoder.backbone, live, compiled=True)
            if blocks is None or any(block.tail is None for block in blocks):
                logger.warning(
                    "training.compile = true has no effect on the layers of %s",
                    encoder.backbone.config.model_type,
                )
