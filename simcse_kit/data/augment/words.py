"""Augmentations of words: deletion, reordering, synonyms (CLEAR), repetition and cropping."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

from simcse_kit.data.augment.base import (
    WordAugmentation,
    check_count,
    check_share,
    random_count,
)
from simcse_kit.data.augment.synonyms import Synonyms, WordNet, read_synonyms

__all__ = ["Crop", "Delete", "DeleteSpan", "Reorder", "Repeat", "Substitute", "place_spans"]

_CORE = re.compile(r"(\W*)(.*?)(\W*)", re.DOTALL)


class Delete(WordAugmentation):
    """Deletes single words (CLEAR, arXiv 2012.15466, section 3.3).

    CLEAR's setting is ``delete(0.7, mark='[DEL]')``.

    Args:
        rate: share of the words to delete, from 0 to 1; every word is equally likely.
        mark: word that replaces each run of deleted words, such as ``'[MASK]'``; None for none.
            CLEAR adds a token for it, which the tokenizer must know.

    Examples:
        >>> Delete(0.5)(["a b c d"], [Random(0)])
        ['b c']
    """

    def __init__(self, rate: float, mark: str | None = None):
        self.rate = check_share(rate, "rate")
        self.mark = _check_mark(mark)

    def change(self, words: list[str], rng: Random) -> list[str]:
        """Return the words that are kept, in their order."""
        deleted = set(rng.sample(range(len(words)), random_count(self.rate, len(words), rng)))
        return _without(words, deleted, self.mark)


class DeleteSpan(WordAugmentation):
    """Deletes spans of consecutive words (CLEAR, arXiv 2012.15466, section 3.3).

    CLEAR's setting is ``delete_span(0.25, 5, mark='[DEL]')``.

    Args:
        rate: share of the words to delete, in all spans together, from 0 to 1.
        spans: number of spans; fewer if there are fewer words to delete.
        mark: as in :class:`Delete`; adjacent spans share one mark.
    """

    def __init__(self, rate: float, spans: int = 1, mark: str | None = None):
        self.rate = check_share(rate, "rate")
        self.spans = check_count(spans, "spans")
        self.mark = _check_mark(mark)

    def change(self, words: list[str], rng: Random) -> list[str]:
        """Return the words outside the spans, in their order."""
        count = random_count(self.rate, len(words), rng)
        spans = min(self.spans, count)
        lengths = [count * (k + 1) // spans - count * k // spans for k in range(spans)]
        deleted: set[int] = set()
        for start, length in place_spans(len(words), lengths, rng):
            deleted.update(range(start, start + length))
        return _without(words, deleted, self.mark)


class Reorder(WordAugmentation):
    """Swaps pairs of spans (CLEAR, arXiv 2012.15466, section 3.3, whose setting is the default).

    Args:
        pairs: number of pairs; a short sentence has as many as fit.
        span: length of a span as a share of the sentence; at least one word.
    """

    def __init__(self, pairs: int = 5, span: float = 0.05):
        self.pairs = check_count(pairs, "pairs")
        self.span = check_share(span, "span")

    def change(self, words: list[str], rng: Random) -> list[str]:
        """Return all words, in the new order."""
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


class Substitute(WordAugmentation):
    """Replaces words by synonyms (CLEAR, arXiv 2012.15466, section 3.3: ``substitute(0.3)``).

    CLEAR takes similar words from word vectors; here they come from WordNet or from a file.
    Capitals and the punctuation around a word are kept.

    Args:
        rate: share of all words to replace, from 0 to 1, as far as enough words have a synonym.
        synonyms: a .tsv file with a word and its synonyms per line; None for the English WordNet
            (extra ``wordnet``).
    """

    def __init__(self, rate: float, synonyms: str | None = None):
        self.rate = check_share(rate, "rate")
        if synonyms is not None and not isinstance(synonyms, str):
            raise ValueError(f"synonyms is {synonyms!r}; it must be the name of a .tsv file")
        self.synonyms: Synonyms = WordNet() if synonyms is None else read_synonyms(Path(synonyms))

    def change(self, words: list[str], rng: Random) -> list[str]:
        """Return the words, some replaced; a synonym of two words stays one item.

        Words are tried in random order until enough of them have a synonym.
        """
        wanted = random_count(self.rate, len(words), rng)
        changed = list(words)
        for place in rng.sample(range(len(words)), len(words)):
            if not wanted:
                break
            match = _CORE.fullmatch(words[place])
            assert match is not None  # the pattern matches any text
            before, core, after = match.groups()
            choices = self.synonyms.of(core.lower()) if core else ()
            if choices:
                changed[place] = before + _with_capitals(rng.choice(choices), core) + after
                wanted -= 1
        return changed


class Repeat(WordAugmentation):
    """Repeats words, so that the length of a sentence is not a cue (ESimCSE, arXiv 2109.04380).

    Of N words, n are repeated, with n uniform from 0 to max(2, int(rate·N)), as section 3.1 of the
    paper does for sub-words. The method ``esimcse`` repeats sub-words.

    Args:
        rate: largest share of the words to repeat, from 0 to 1; two words are always allowed,
            except that 0 repeats none.
    """

    def __init__(self, rate: float = 0.32):
        self.rate = check_share(rate, "rate")

    def change(self, words: list[str], rng: Random) -> list[str]:
        """Return all words in their order, some of them twice."""
        most = max(2, int(self.rate * len(words))) if self.rate else 0
        count = min(rng.randint(0, most), len(words))
        twice = set(rng.sample(range(len(words)), count))
        return [word for place, word in enumerate(words) for _ in range(1 + (place in twice))]


class Crop(WordAugmentation):
    """Keeps one span of consecutive words (SimCSE, arXiv 2104.08821, table 1).

    Args:
        keep: share of the words to keep, above 0 and at most 1; the paper's "crop 10 %" is
            ``crop(0.9)``.
    """

    def __init__(self, keep: float):
        self.keep = check_share(keep, "keep")
        if not self.keep:
            raise ValueError("keep is 0, which keeps no word; it must be above 0 and at most 1")

    def change(self, words: list[str], rng: Random) -> list[str]:
        """Return the words of the span, at least one."""
        count = max(1, random_count(self.keep, len(words), rng))
        start = rng.randint(0, len(words) - count)
        return words[start : start + count]


def place_spans(size: int, lengths: list[int], rng: Random) -> list[tuple[int, int]]:
    """Place spans without overlap, uniformly over all placements.

    Args:
        size: number of words.
        lengths: lengths of the spans from left to right, in words; at most ``size`` in total.
        rng: random numbers.

    Returns:
        Start and length of each span, from left to right.
    """
    # With each span shrunk to one word, the starts are a sample without replacement.
    room = size - sum(lengths) + len(lengths)
    starts = sorted(rng.sample(range(room), len(lengths)))
    placed, shift = [], 0
    for start, length in zip(starts, lengths, strict=True):
        placed.append((start + shift, length))
        shift += length - 1
    return placed


def _without(words: list[str], deleted: set[int], mark: str | None) -> list[str]:
    if len(deleted) == len(words):
        return []  # a sentence of marks alone has no meaning
    kept = []
    for place, word in enumerate(words):
        if place not in deleted:
            kept.append(word)
        elif mark is not None and place - 1 not in deleted:
            kept.append(mark)
    return kept


def _check_mark(mark: str | None) -> str | None:
    if mark is not None and (not isinstance(mark, str) or not mark.strip()):
        raise ValueError(f"mark is {mark!r}; it must be a word, such as '[MASK]', or None")
    return mark


def _with_capitals(word: str, model: str) -> str:
    if model.isupper() and len(model) > 1:
        return word.upper()
    return word[0].upper() + word[1:] if model[0].isupper() else word
