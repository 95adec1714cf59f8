"""Substitution of tokens by a masked language model."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import ClassVar, Protocol

from simcse_kit.data.augment.base import Augmentation, check_count, check_share

__all__ = ["MLM", "FillMasks"]


class FillMasks(Protocol):
    """A masked language model that replaces tokens."""

    def __call__(
        self, texts: Sequence[str], rngs: Sequence[Random], *, rate: float, top: int
    ) -> list[str]:
        """Replace a share ``rate`` of the tokens of each text by one of ``top`` proposals."""


class MLM(Augmentation):
    """Replaces tokens by proposals of a masked language model, never by the same token.

    SimCSE replaces 15 % of the tokens this way (arXiv 2104.08821, table 1).

    Args:
        rate: share of the tokens to replace, from 0 to 1.
        top: number of proposals to sample from by their probabilities; 1 takes the most likely.
    """

    needs_model: ClassVar[bool] = True

    def __init__(self, rate: float = 0.15, top: int = 10):
        self.rate = check_share(rate, "rate")
        self.top = check_count(top, "top")
        self.model: FillMasks | None = None

    def __call__(self, texts: Sequence[str], rngs: Sequence[Random]) -> list[str]:
        """Return the texts with the replaced tokens."""
        if self.model is None:
            raise RuntimeError("the augmentation mlm has no model; call Chain.use first")
        return self.model(texts, rngs, rate=self.rate, top=self.top)
