"""Words exchanged for what a masked language model would say there."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import ClassVar, Protocol

from simcse_kit.data.augment.base import Augmentation, checked_count, checked_share

__all__ = ["MLM", "FillMasks"]


class FillMasks(Protocol):
    """A masked language model that exchanges tokens."""

    def __call__(
        self, texts: Sequence[str], rngs: Sequence[Random], *, rate: float, top: int
    ) -> list[str]:
        """Exchange a share ``rate`` of the tokens of each text for one of its ``top`` proposals."""


class MLM(Augmentation):
    """Masks tokens and puts a proposal of the model in the place of each, never the token itself.

    The paper of SimCSE replaces 15 % this way (arXiv 2104.08821, table of augmentations).

    Args:
        rate: share of the tokens.
        top: the proposals to draw from, by their probabilities; 1 takes the likeliest.
    """

    needs_model: ClassVar[bool] = True

    def __init__(self, rate: float = 0.15, top: int = 10):
        self.rate = checked_share(rate, "rate")
        self.top = checked_count(top, "top")
        self.model: FillMasks | None = None

    def __call__(self, texts: Sequence[str], rngs: Sequence[Random]) -> list[str]:
        """The texts with the proposals."""
        if self.model is None:
            raise RuntimeError("the chain was not given a model; call Chain.use first")
        return self.model(texts, rngs, rate=self.rate, top=self.top)
