"""A stretch of a sentence (the "crop" of SimCSE's table of augmentations, arXiv 2104.08821)."""

from __future__ import annotations

from random import Random

from simcse_kit.data.augment.base import WordAugmentation, checked_share, part_of

__all__ = ["Crop"]


class Crop(WordAugmentation):
    """Keeps words that stand together, at least one.

    Args:
        keep: share of the words that stays; the paper's "crop 10 %" is ``crop(0.9)``.
    """

    def __init__(self, keep: float):
        self.keep = checked_share(keep, "keep")
        if not self.keep:
            raise ValueError("keep is 0, which leaves nothing; it must be above 0, at most 1")

    def change(self, words: list[str], rng: Random) -> list[str]:
        """The words of the stretch."""
        count = max(1, part_of(self.keep, len(words), rng))
        start = rng.randint(0, len(words) - count)
        return words[start : start + count]
