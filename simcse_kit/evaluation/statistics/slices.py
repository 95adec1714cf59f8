"""Kinds of sentence pairs, by what makes them easy or hard to grade."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from simcse_kit.evaluation.pair_set import PairSet

__all__ = ["SLICES", "slices"]

_WORD = re.compile(r"\w+(?:'\w+)?", re.UNICODE)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_NEGATIONS = frozenset(
    "no not none nobody nothing nowhere never neither nor without cannot n't hardly".split()
)

Words = list[str]


def slices(pairs: PairSet) -> dict[str, NDArray[np.bool_]]:
    """Which pairs belong to each slice of :data:`SLICES`: name -> (n,) bool.

    Slices overlap, and a pair may be in none of those about negation, numbers and word order.
    """
    split = [
        (_words(one), _words(two))
        for one, two in zip(pairs.sentences1, pairs.sentences2, strict=True)
    ]
    return {
        name: np.array([belongs(one, two) for one, two in split], dtype=bool)
        for name, belongs in SLICES.items()
    }


def _words(text: str) -> Words:
    return _WORD.findall(text.lower())


def _overlap(one: Words, two: Words) -> float:
    """Shared over all distinct words."""
    first, second = set(one), set(two)
    return len(first & second) / max(1, len(first | second))


def _gap(one: Words, two: Words) -> int:
    return abs(len(one) - len(two))


def _negated(words: Words) -> bool:
    return any(word in _NEGATIONS or word.endswith("n't") for word in words)


def _numbers(words: Words) -> list[str]:
    return sorted(word for word in words if _NUMBER.fullmatch(word))


SLICES: dict[str, Callable[[Words, Words], bool]] = {
    "length differs by 0-1 words": lambda one, two: _gap(one, two) <= 1,
    "length differs by 2-4 words": lambda one, two: 2 <= _gap(one, two) <= 4,
    "length differs by 5 words or more": lambda one, two: _gap(one, two) >= 5,
    "word overlap below 0.25": lambda one, two: _overlap(one, two) < 0.25,
    "word overlap 0.25 to 0.5": lambda one, two: 0.25 <= _overlap(one, two) < 0.5,
    "word overlap 0.5 or more": lambda one, two: _overlap(one, two) >= 0.5,
    "one sentence is negated": lambda one, two: _negated(one) != _negated(two),
    "different numbers": lambda one, two: _numbers(one) != _numbers(two),
    "same words, other order": lambda one, two: one != two and sorted(one) == sorted(two),
}
"""Slice -> whether a pair of word lists belongs to it. Overlap is Jaccard's, of distinct words."""
