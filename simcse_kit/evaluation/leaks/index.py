"""Evaluation sentences, to be found again in any other text."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from simcse_kit.curation.normal import normal_form
from simcse_kit.errors import ConfigError

__all__ = ["KINDS", "Hit", "Kind", "LeakIndex", "pieces"]

Kind = Literal["exact", "normal", "near"]
KINDS: tuple[Kind, ...] = ("exact", "normal", "near")
"""How a text matches: letter for letter; but for case, punctuation and spacing; or nearly."""

# Words in a row. Single words would call every shuffle of a sentence a copy, and runs of three
# leave nothing in common once every third word is changed.
_RUN = 2


@dataclass(frozen=True)
class Hit:
    """An evaluation sentence that a text matches.

    Attributes:
        sentence: its number in the index.
        kind: how it matches.
        similarity: Jaccard similarity of the word pairs; 1 unless ``near``.
    """

    sentence: int
    kind: Kind
    similarity: float


class LeakIndex:
    """Finds the evaluation sentences that a text is a copy of.

    Near copies are found by their shared runs of two words: an inverted index over the evaluation
    sentences counts them, so that every pair above the threshold is found, and none below. (MinHash
    would miss some; it pays where both sides are large, and the evaluation sets are not.) Memory is
    that of the evaluation sentences, whatever is looked up.

    Args:
        sets: name -> sentences of it.
        threshold: least Jaccard similarity of near copies, above 0 and at most 1; None finds none.

    Attributes:
        sentences: the distinct sentences of all sets.
        sets: name -> numbers of its sentences.

    Raises:
        ConfigError: a threshold that is not allowed.
    """

    def __init__(self, sets: Mapping[str, Iterable[str]], threshold: float | None = 0.8):
        if threshold is not None and not 0 < threshold <= 1:
            raise ConfigError(f"threshold is {threshold}; allowed: above 0, at most 1")
        self._threshold = threshold
        numbers: dict[str, int] = {}
        self.sets = {
            name: {numbers.setdefault(text, len(numbers)) for text in texts}
            for name, texts in sets.items()
        }
        self.sentences = list(numbers)
        self._exact = numbers
        self._normal: dict[str, list[int]] = defaultdict(list)
        self._postings: dict[str, list[int]] = defaultdict(list)
        self._sizes: list[int] = []
        for text, number in numbers.items():
            form = normal_form(text)
            self._normal[form].append(number)
            own = pieces(form)
            self._sizes.append(len(own))
            for piece in own if threshold is not None else ():
                self._postings[piece].append(number)

    def find(self, text: str) -> list[Hit]:
        """The evaluation sentences that ``text`` matches, each once, by the strictest kind."""
        found: dict[int, Hit] = {}
        exact = self._exact.get(text)
        if exact is not None:
            found[exact] = Hit(exact, "exact", 1.0)
        form = normal_form(text)
        for number in self._normal.get(form, ()):
            found.setdefault(number, Hit(number, "normal", 1.0))
        if self._threshold is not None:
            own = pieces(form)
            shared = Counter(
                number
                for piece in own
                if piece in self._postings
                for number in self._postings[piece]
            )
            for number, count in shared.items():
                similarity = count / (len(own) + self._sizes[number] - count)
                if similarity >= self._threshold and number not in found:
                    found[number] = Hit(number, "near", similarity)
        return list(found.values())


def pieces(form: str) -> set[str]:
    """The runs of two words of a normal form; the word itself where there is one only."""
    words = form.split()
    if len(words) < _RUN:
        return set(words)
    return {" ".join(words[at : at + _RUN]) for at in range(len(words) - _RUN + 1)}
