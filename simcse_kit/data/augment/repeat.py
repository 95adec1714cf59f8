"""Words said twice (after ESimCSE, arXiv 2109.04380, which repeats sub-words)."""

from __future__ import annotations

from random import Random

from simcse_kit.data.augment.base import WordAugmentation, checked_share

__all__ = ["Repeat"]


class Repeat(WordAugmentation):
    """Says some words twice in a row, so that equal length tells nothing.

    Of N words n are said twice, n any number from 0 to max(2, int(rate·N)) alike, as the paper's
    section 3.1 has it for sub-words; method ``esimcse`` repeats these.

    Args:
        rate: most words repeated, as a share of the sentence (two always may be); 0 repeats none.
    """

    def __init__(self, rate: float = 0.32):
        self.rate = checked_share(rate, "rate")

    def change(self, words: list[str], rng: Random) -> list[str]:
        """All words in their order, some twice."""
        most = max(2, int(self.rate * len(words))) if self.rate else 0
        count = min(rng.randint(0, most), len(words))
        twice = set(rng.sample(range(len(words)), count))
        return [word for place, word in enumerate(words) for _ in range(1 + (place in twice))]
