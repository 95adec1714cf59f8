"""How the batches of an encoder run: packed, padded, or in rows of equal length."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from torch import nn

from simcse_kit.encoder.forked_processes import PREPARING
from simcse_kit.encoder.packing.layout import Batching, UnpackableError, Unpacked
from simcse_kit.errors import ModelError

__all__ = ["BatchedModule"]

logger = logging.getLogger(__name__)


class BatchedModule(nn.Module):
    """A network that finds out once how its batches can run.

    Attributes:
        backbone: Transformer.
        tokenizer: Hugging Face tokenizer.
        known_batching: How batches run, after the first use of :attr:`batching`.
    """

    backbone: Any
    tokenizer: Any
    known_batching: Batching | None

    @property
    def batching(self) -> Batching:
        """How batches run: packed, padded, or in rows of equal length; tried at first use."""
        if self.known_batching is not None:
            return self.known_batching
        from simcse_kit.encoder.packing.probe import find_batching

        # The probe changes the attention of the model temporarily, and threads may share the model.
        with PREPARING:
            if self.known_batching is None:
                self.known_batching = find_batching(self.backbone, self.tokenizer.pad_token_id)
            return self.known_batching

    @property
    def packs(self) -> bool:
        """Whether batches run without padding, which some architectures do not allow."""
        # Only transformers' own code recomputes activations, and only in training.
        if self.backbone.training and any(
            getattr(part, "gradient_checkpointing", False) for part in self.backbone.modules()
        ):
            return False
        return self.batching.packed

    def stop_packing(self, reason: UnpackableError) -> None:
        """Run all further batches unpacked."""
        kind = self.backbone.config.model_type
        logger.info("%s %s: batches are padded, which is slower", kind, reason)
        self.known_batching = replace(self.batching, packed=False)

    def require_padding(self, what: str, remedy: str = "use another model") -> None:
        """Refuse a model that cannot run padded batches.

        Args:
            what: Feature that needs padded batches, as the subject of a sentence.
            remedy: Advice for the error message.

        Raises:
            ModelError: The token states depend on the padding.
        """
        if self.batching.unpacked is not Unpacked.PADDED:
            raise ModelError(
                f"{what} runs padded batches, and the states of a "
                f"{self.backbone.config.model_type} depend on the padding; {remedy}"
            )
