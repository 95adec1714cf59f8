"""Index of evaluation sentences that finds copies of them in other text."""

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
"""Kinds of matches, strictest first: equal; equal up to case, punctuation and spacing; equal in the
letters; near; or the text contains the sentence."""

Piece = tuple[str, ...]
"""Consecutive words."""

# Words in a piece. With single words every shuffled sentence would be a copy, and with three words
# nothing is in common if every third word is changed.
_RUN = 2
# The values below were chosen on film reviews and training text, see evaluation/leaks/README.md.
# A text below the threshold is near, too, if it has this share of common word pairs and this share
# of common letters: word pairs alone would miss most short sentences with a misspelling.
_MISSPELT_PAIRS = 0.5
_MISSPELT_LETTERS = 0.95
CONTAINED = 0.9
"""Smallest share of a sentence's word pairs in a text that contains it."""
# These pairs must be in a stretch of the text that is at most this many times as long.
_STRETCH = 1.5
# A sentence with fewer word pairs is found inside a text only as a whole sentence there, and one
# with fewer words is not found inside a text.
_CONTAINED_PAIRS = 8
_CONTAINED_WORDS = 5
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Hit:
    """An evaluation sentence that a text matches.

    Attributes:
        sentence: number of the sentence in the index.
        kind: kind of the match.
        similarity: for ``near`` the Jaccard similarity of the word pairs, or the share of common
            letters if the text is near by its letters; for ``contained`` the share of the
            sentence's word pairs in the text; 1 for the other kinds.
    """

    sentence: int
    kind: Kind
    similarity: float


class LeakIndex:
    """Index that finds the evaluation sentences that a text copies or contains.

    A near copy or a containing text must share a certain number of a sentence's word pairs, so it
    shares one of the rarest few, and the sentence is indexed under only those. The search is exact,
    unlike MinHash, which pays off only if both sides are large. Memory depends only on the
    evaluation sentences.

    Args:
        sets: sentences by name of the evaluation set.
        threshold: smallest Jaccard similarity of near copies, above 0 and at most 1; copies that
            differ in very few letters are always found. None: only equal texts are found.

    Attributes:
        sentences: distinct sentences of all sets.
        sets: numbers of the sentences of each set.

    Raises:
        ConfigError: the threshold is not allowed.

    Examples:
        >>> index = LeakIndex({"test": ["A cat sits on the mat."]})
        >>> [hit.kind for hit in index.find("a cat sits on the mat")]
        ['normal']
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
        # First part of a sentence, up to a stop -> its number and all its parts.
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
        """Find the evaluation sentences that a text matches, each once, by the strictest kind."""
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
        """Index each sentence under enough of its rarest pieces that every match shares one."""
        frequency = Counter(chain.from_iterable(self._pieces))
        for number, own in enumerate(self._pieces):
            rarest = sorted(own, key=lambda piece: (frequency[piece], piece))
            for piece in rarest[: len(own) - self._least(len(own)) + 1]:
                self._postings[piece].append(number)

    def _least(self, size: int) -> int:
        """Return how many of a sentence's ``size`` pieces a match must share."""
        # A containing text must share more.
        share = min(self._threshold or 1.0, _MISSPELT_PAIRS)
        return max(1, math.ceil(share * size - _ROUNDING))

    def _overlapping(self, own: Sequence[str], key: str, threshold: float) -> Iterator[Hit]:
        """Find matches by the share of common word pairs."""
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
        """Find sentences that are whole sentences of a longer text, equal in the letters."""
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
    """Split words into overlapping runs of two; a single word is a run of one."""
    if len(words) < _RUN:
        return [tuple(words)] if words else []
    return list(pairwise(words))


def _common_letters(one: str, other: str) -> float:
    """Compute the share of letters that match in order; 0 if it is clearly too low."""
    matcher = SequenceMatcher(None, one, other, autojunk=False)
    for bound in (matcher.real_quick_ratio, matcher.quick_ratio):
        if bound() < _MISSPELT_LETTERS:
            return 0.0
    return matcher.ratio()


def _densest(run: Sequence[Piece], wanted: frozenset[Piece]) -> float:
    """Compute the largest share of the wanted pieces in a slightly longer stretch of a run."""
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
