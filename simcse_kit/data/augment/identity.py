"""No change: views that differ by dropout alone (SimCSE, arXiv 2104.08821)."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from simcse_kit.data.augment.base import Augmentation

__all__ = ["Identity"]


class Identity(Augmentation):
    """Leaves every text as it is."""

    def __call__(self, texts: Sequence[str], rngs: Sequence[Random]) -> list[str]:  # noqa: ARG002
        """The texts themselves."""
        return list(texts)
