"""What an augmentation is: texts in, as many changed texts out."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from random import Random
from typing import ClassVar

__all__ = [
    "Augmentation",
    "WordAugmentation",
    "checked_count",
    "checked_share",
    "join_words",
    "part_of",
    "split_words",
]

# Kana, ideographs, and the punctuation that goes with them: written without spaces.
_UNSPACED = "\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")
_IS_UNSPACED = re.compile(rf"[{_UNSPACED}]").match


class Augmentation(ABC):
    """Changes sentences at random. Holds options only, so that data-loader workers may have it.

    What happens to a text depends on the text and its random numbers alone, never on the other
    texts of the call: so batch size and workers make no difference.
    """

    needs_model: ClassVar[bool] = False
    """Whether it must be given a masked language model before it is called."""

    @abstractmethod
    def __call__(self, texts: Sequence[str], rngs: Sequence[Random]) -> list[str]:
        """The changed texts, in the same order.

        Args:
            texts: not blank.
            rngs: the random numbers of each text.
        """


class WordAugmentation(Augmentation):
    """An augmentation that treats a sentence as a list of words."""

    def __call__(self, texts: Sequence[str], rngs: Sequence[Random]) -> list[str]:
        """The changed texts; one whose words stay keeps its spaces too."""
        changed = []
        for text, rng in zip(texts, rngs, strict=True):
            words = split_words(text)
            new = self.change(words, rng)
            changed.append(text if new == words else join_words(new))
        return changed

    @abstractmethod
    def change(self, words: list[str], rng: Random) -> list[str]:
        """The words of the changed sentence; ``words`` itself is left as it is."""


def split_words(text: str) -> list[str]:
    """Split at white space; ideographs and kana, which have none, are words by themselves."""
    return _WORD.findall(text)


def join_words(words: Sequence[str]) -> str:
    """Put words together, with a space between those that are written with one."""
    parts: list[str] = []
    for word in words:
        if parts and not (_IS_UNSPACED(parts[-1]) or _IS_UNSPACED(word)):
            parts.append(" ")
        parts.append(word)
    return "".join(parts)


def part_of(share: float, count: int, rng: Random) -> int:
    """``share * count`` rounded at random to one of the two nearest whole numbers.

    Its mean is exact: a tenth of a sentence of five words is one word in every other sentence,
    where rounding would always give none.
    """
    whole, rest = divmod(share * count, 1)
    return min(count, int(whole) + (rng.random() < rest))


def checked_share(value: float, name: str) -> float:
    """The number, if it is one from 0 to 1.

    Raises:
        ValueError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ValueError(f"{name} is {value!r}; it must be a number from 0 to 1")
    return float(value)


def checked_count(value: int, name: str) -> int:
    """The number, if it is a whole one from 1.

    Raises:
        ValueError: it is not.
    """
    if type(value) is not int or value < 1:
        raise ValueError(f"{name} is {value!r}; it must be a whole number from 1")
    return value
