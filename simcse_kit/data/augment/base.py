"""Base classes of text augmentations."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from random import Random
from typing import ClassVar

__all__ = [
    "Augmentation",
    "Identity",
    "WordAugmentation",
    "check_count",
    "check_share",
    "join_words",
    "random_count",
    "split_words",
]

# Kana, ideographs and their punctuation, which are written without spaces.
_UNSPACED = "\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")
_IS_UNSPACED = re.compile(rf"[{_UNSPACED}]").match


class Augmentation(ABC):
    """Base class of augmentations, which change sentences at random.

    The change of a text depends only on the text and its random numbers, never on the other texts
    of the call, so that batch size and number of workers make no difference. Objects hold options
    only and are pickled for data-loader workers.

    Examples:
        >>> class Upper(Augmentation):
        ...     def __call__(self, texts, rngs):
        ...         return [text.upper() for text in texts]
        >>> Upper()(["a dog"], [Random(0)])
        ['A DOG']
    """

    needs_model: ClassVar[bool] = False
    """Whether the augmentation needs a masked language model before its first call."""

    @abstractmethod
    def __call__(self, texts: Sequence[str], rngs: Sequence[Random]) -> list[str]:
        """Return the changed texts, in the same order.

        Args:
            texts: the texts, none of them blank.
            rngs: one random number generator per text.
        """


class Identity(Augmentation):
    """Returns texts unchanged: views that differ by dropout only (SimCSE, arXiv 2104.08821)."""

    def __call__(self, texts: Sequence[str], rngs: Sequence[Random]) -> list[str]:  # noqa: ARG002
        """Return the texts."""
        return list(texts)


class WordAugmentation(Augmentation):
    """Base class of augmentations that treat a sentence as a list of words."""

    def __call__(self, texts: Sequence[str], rngs: Sequence[Random]) -> list[str]:
        """Return the changed texts; a text whose words are unchanged keeps its spaces."""
        changed = []
        for text, rng in zip(texts, rngs, strict=True):
            words = split_words(text)
            new = self.change(words, rng)
            changed.append(text if new == words else join_words(new))
        return changed

    @abstractmethod
    def change(self, words: list[str], rng: Random) -> list[str]:
        """Return the words of the changed sentence, without changing the list ``words``."""


def split_words(text: str) -> list[str]:
    """Split a text at white space; each ideograph and each kana is a word of its own."""
    return _WORD.findall(text)


def join_words(words: Sequence[str]) -> str:
    """Join words by spaces, except next to ideographs and kana."""
    parts: list[str] = []
    for word in words:
        if parts and not (_IS_UNSPACED(parts[-1]) or _IS_UNSPACED(word)):
            parts.append(" ")
        parts.append(word)
    return "".join(parts)


def random_count(share: float, count: int, rng: Random) -> int:
    """Round ``share * count`` up or down at random, so that the mean is exact.

    With a share of 0.1, a sentence of five words loses one word in every second call.
    """
    whole, rest = divmod(share * count, 1)
    return min(count, int(whole) + (rng.random() < rest))


def check_share(value: float, name: str) -> float:
    """Return a number from 0 to 1.

    Raises:
        ValueError: the value is not a number from 0 to 1.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ValueError(f"{name} is {value!r}; it must be a number from 0 to 1")
    return float(value)


def check_count(value: int, name: str) -> int:
    """Return a whole number of at least 1.

    Raises:
        ValueError: the value is not a whole number of at least 1.
    """
    if type(value) is not int or value < 1:
        raise ValueError(f"{name} is {value!r}; it must be a whole number of at least 1")
    return value
