"""Evaluation sentences, to be found again in any other text."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import chain, pairwise
from typing import Literal

from simcse_kit.data.prepare.normalize import letters_key, normal_key, sentence_words
from simcse_kit.errors import ConfigError

__all__ = ["CONTAINED", "KINDS", "Hit", "Kind", "LeakIndex", "Piece", "pieces"]

Kind = Literal["exact", "normal", "letters", "near", "contained"]
KINDS: tuple[Kind, ...] = ("exact", "normal", "letters", "near", "contained")
"""How a text matches, the strictest kind first: letter for letter; up to case, punctuation and
spacing; up to symbols as well; nearly; or by holding the sentence among other text."""

Piece = tuple[str, ...]
"""A run of words."""

# Words in a row. Single words would call every shuffle of a sentence a copy, and runs of three
# leave nothing in common once every third word is changed.
_RUN = 2
# The figures below were chosen on film reviews and training text: see evaluation/leaks/README.md.
# With fewer common word pairs than the threshold a text is near, too, if it has at least these and
# hardly another letter: word pairs alone would miss most misspelt short sentences.
_MISSPELT_PAIRS = 0.5
_MISSPELT_LETTERS = 0.95
CONTAINED = 0.9
"""Least share of an evaluation sentence's word pairs that a text holds which contains it,"""
_CONTAINED_PAIRS = 8
# within a stretch of the text at most this many times as long. A sentence with fewer word pairs is
# found inside a text only from one stop to another, and one with fewer words than these not at all.
_STRETCH = 1.5
_CONTAINED_WORDS = 5
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Hit:
    """An evaluation sentence that a text matches.

    Attributes:
        sentence: its number in the index.
        kind: how it matches.
        similarity: 1; or of ``near`` the Jaccard similarity of the word pairs, or the share of
            common letters where that is what makes it near; or of ``contained`` the share of the
            sentence's word pairs that are in the text.
    """

    sentence: int
    kind: Kind
    similarity: float


class LeakIndex:
    """Finds the evaluation sentences that a text is a copy of, or contains.

    A near copy or a containing text must share a certain number of a sentence's word pairs.
    Therefore it shares one of the rarest few, and only under those is the sentence indexed; every
    pair above the threshold is found, and none below. (MinHash would miss some; it pays where both
    sides are large, and the evaluation sets are not.) Memory is that of the evaluation sentences,
    whatever is looked up.

    Args:
        sets: name -> sentences of it.
        threshold: least Jaccard similarity of near copies, above 0 and at most 1; those that differ
            by very few letters are found whatever it is. None finds neither near copies nor
            containing texts.

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
        self._letters: dict[str, list[int]] = defaultdict(list)
        self._keys: list[str] = []
        self._pieces: list[frozenset[Piece]] = []
        # What a text has before its first stop -> number and parts of the texts that begin so.
        self._parts: dict[str, list[tuple[int, list[str]]]] = defaultdict(list)
        self._postings: dict[Piece, list[int]] = defaultdict(list)
        for text, number in numbers.items():
            parts = sentence_words(text)
            own = list(chain.from_iterable(parts))
            self._keys.append(letters_key(text, own))
            self._letters[self._keys[-1]].append(number)
            if threshold is not None:
                self._pieces.append(frozenset(pieces(own)))
                if len(own) >= _CONTAINED_WORDS:
                    keys = list(map("".join, parts))
                    self._parts[keys[0]].append((number, keys))
        self._post()

    def find(self, text: str) -> list[Hit]:
        """The evaluation sentences that ``text`` matches, each once, by the strictest kind."""
        found: dict[int, Hit] = {}
        exact = self._exact.get(text)
        if exact is not None:
            found[exact] = Hit(exact, "exact", 1.0)
        parts = sentence_words(text)
        own = list(chain.from_iterable(parts))
        key = letters_key(text, own)
        equal = self._letters.get(key)
        if equal is not None:
            normal = normal_key(text)
            for number in equal:
                same = normal_key(self.sentences[number]) == normal
                found.setdefault(number, Hit(number, "normal" if same else "letters", 1.0))
        if self._threshold is not None:
            overlapping = self._overlapping(own, key, self._threshold)
            hits = sorted(chain(overlapping, self._between_stops(parts)), key=_strictest_first)
            for hit in hits:
                found.setdefault(hit.sentence, hit)
        return list(found.values())

    def _post(self) -> None:
        """Index each sentence under enough of its rarest pieces that a match must share one."""
        frequency = Counter(chain.from_iterable(self._pieces))
        for number, own in enumerate(self._pieces):
            rarest = sorted(own, key=lambda piece: (frequency[piece], piece))
            for piece in rarest[: len(own) - self._least(len(own)) + 1]:
                self._postings[piece].append(number)

    def _least(self, size: int) -> int:
        """How many of a sentence's ``size`` pieces a text must share to match it."""
        # That of a containing text is larger.
        share = min(self._threshold or 1.0, _MISSPELT_PAIRS)
        return max(1, math.ceil(share * size - _ROUNDING))

    def _overlapping(self, own: Sequence[str], key: str, threshold: float) -> Iterator[Hit]:
        """Hits by the share of common word pairs."""
        run = pieces(own)
        distinct = set(run)
        candidates = {
            number
            for piece in distinct
            if piece in self._postings
            for number in self._postings[piece]
        }
        for number in candidates:
            theirs = self._pieces[number]
            shared = len(distinct & theirs)
            similarity = shared / (len(distinct) + len(theirs) - shared)
            if similarity >= threshold:
                yield Hit(number, "near", similarity)
                continue
            if similarity >= _MISSPELT_PAIRS:
                common = _common_letters(key, self._keys[number])
                if common >= _MISSPELT_LETTERS:
                    yield Hit(number, "near", common)
                    continue
            if len(theirs) >= _CONTAINED_PAIRS and shared / len(theirs) >= CONTAINED:
                share = _densest(run, theirs)
                if share >= CONTAINED:
                    yield Hit(number, "contained", share)

    def _between_stops(self, parts: Sequence[Sequence[str]]) -> Iterator[Hit]:
        """Hits that are whole sentences of a longer text, letter for letter."""
        if len(parts) < 2:
            return
        keys = list(map("".join, parts))
        for at, key in enumerate(keys):
            for number, theirs in self._parts.get(key, ()):
                if len(theirs) < len(keys) and keys[at : at + len(theirs)] == theirs:
                    yield Hit(number, "contained", 1.0)


def _strictest_first(hit: Hit) -> tuple[int, float, int]:
    return KINDS.index(hit.kind), -hit.similarity, hit.sentence


def pieces(words: Sequence[str]) -> list[Piece]:
    """The runs of two words, in order; the word itself where there is one only."""
    if len(words) < _RUN:
        return [tuple(words)] if words else []
    return list(pairwise(words))


def _common_letters(one: str, other: str) -> float:
    """The share of the letters of two keys that match in order; 0 where it is clearly too low."""
    matcher = SequenceMatcher(None, one, other, autojunk=False)
    for bound in (matcher.real_quick_ratio, matcher.quick_ratio):
        if bound() < _MISSPELT_LETTERS:
            return 0.0
    return matcher.ratio()


def _densest(run: Sequence[Piece], wanted: frozenset[Piece]) -> float:
    """The largest share of ``wanted`` in a stretch of ``run`` that is little longer."""
    width = math.ceil(_STRETCH * len(wanted))
    inside: Counter[Piece] = Counter()
    most = 0
    for at, piece in enumerate(run):
        if piece in wanted:
            inside[piece] += 1
        if at >= width and (left := run[at - width]) in wanted:
            inside[left] -= 1
            if not inside[left]:
                del inside[left]
        most = max(most, len(inside))
    return most / len(wanted)
