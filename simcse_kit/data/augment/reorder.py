"""Spans that change places (CLEAR, arXiv 2012.15466)."""

from __future__ import annotations

from random import Random

from simcse_kit.data.augment.base import WordAugmentation, checked_count, checked_share
from simcse_kit.data.augment.delete import place_spans

__all__ = ["Reorder"]


class Reorder(WordAugmentation):
    """Swaps pairs of spans; CLEAR's is the default.

    Args:
        pairs: how many pairs; a short sentence has as many as find room.
        span: words of a span, as a share of the sentence; at least one word.
    """

    def __init__(self, pairs: int = 5, span: float = 0.05):
        self.pairs = checked_count(pairs, "pairs")
        self.span = checked_share(span, "span")

    def change(self, words: list[str], rng: Random) -> list[str]:
        """All words, some elsewhere."""
        size = len(words)
        length = max(1, min(round(self.span * size), size // 2))
        pairs = min(self.pairs, size // (2 * length))
        places = [start for start, _ in place_spans(size, [length] * (2 * pairs), rng)]
        rng.shuffle(places)
        moved = list(words)
        for first, second in zip(places[::2], places[1::2], strict=True):
            moved[first : first + length] = words[second : second + length]
            moved[second : second + length] = words[first : first + length]
        return moved
