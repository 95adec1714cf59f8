"""Deletion of words and of spans (CLEAR, arXiv 2012.15466)."""

from __future__ import annotations

from random import Random

from simcse_kit.data.augment.base import (
    WordAugmentation,
    checked_count,
    checked_share,
    part_of,
)

__all__ = ["Delete", "DeleteSpan"]


class Delete(WordAugmentation):
    """Leaves out words; CLEAR's is ``delete(0.7, mark='[DEL]')``.

    Args:
        rate: share of the words to leave out, all equally likely.
        mark: what stands for each run of words left out, such as ``'[MASK]'``; None for nothing.
            CLEAR has a token of its own, which a tokenizer must know to be of use.
    """

    def __init__(self, rate: float, mark: str | None = None):
        self.rate = checked_share(rate, "rate")
        self.mark = _checked_mark(mark)

    def change(self, words: list[str], rng: Random) -> list[str]:
        """The words that stay, in their order."""
        gone = set(rng.sample(range(len(words)), part_of(self.rate, len(words), rng)))
        return _without(words, gone, self.mark)


class DeleteSpan(WordAugmentation):
    """Leaves out words that stand together; CLEAR's is ``delete_span(0.25, 5, mark='[DEL]')``.

    Args:
        rate: share of the words to leave out, in all spans together.
        spans: how many spans; fewer where there are fewer words to leave out.
        mark: as in :class:`Delete`; spans that touch have one mark.
    """

    def __init__(self, rate: float, spans: int = 1, mark: str | None = None):
        self.rate = checked_share(rate, "rate")
        self.spans = checked_count(spans, "spans")
        self.mark = _checked_mark(mark)

    def change(self, words: list[str], rng: Random) -> list[str]:
        """The words outside of the spans, in their order."""
        count = part_of(self.rate, len(words), rng)
        spans = min(self.spans, count)
        lengths = [count * (k + 1) // spans - count * k // spans for k in range(spans)]
        gone: set[int] = set()
        for start, length in place_spans(len(words), lengths, rng):
            gone.update(range(start, start + length))
        return _without(words, gone, self.mark)


def place_spans(size: int, lengths: list[int], rng: Random) -> list[tuple[int, int]]:
    """Starts and lengths of spans that do not overlap, left to right, any placing as likely.

    Args:
        size: number of places.
        lengths: of the spans, from left to right; at most ``size`` together.
        rng: random numbers.
    """
    # Shrink each span to one place: their starts are then a plain sample without replacement.
    room = size - sum(lengths) + len(lengths)
    starts = sorted(rng.sample(range(room), len(lengths)))
    placed, shift = [], 0
    for start, length in zip(starts, lengths, strict=True):
        placed.append((start + shift, length))
        shift += length - 1
    return placed


def _without(words: list[str], gone: set[int], mark: str | None) -> list[str]:
    if len(gone) == len(words):
        return []  # marks alone are no sentence
    kept = []
    for place, word in enumerate(words):
        if place not in gone:
            kept.append(word)
        elif mark is not None and place - 1 not in gone:
            kept.append(mark)
    return kept


def _checked_mark(mark: str | None) -> str | None:
    if mark is not None and (not isinstance(mark, str) or not mark.strip()):
        raise ValueError(f"mark is {mark!r}; it must be a word, such as '[MASK]', or None")
    return mark
