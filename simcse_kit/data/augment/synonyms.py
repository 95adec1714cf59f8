"""Synonyms from WordNet or from a file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from simcse_kit.data.lines import read_lines
from simcse_kit.errors import ConfigError, DataError, MissingExtraError

__all__ = ["Synonyms", "WordNet", "other_lemmas", "read_synonyms"]


# WordNet has nouns with the same spelling: "he" is helium, "a" the angstrom.
_FUNCTION_WORDS = frozenset(
    "a about above after against all am an and any are as at be because been before being below "
    "between but by can could did do does doing down during each either every few for from had "
    "has have having he her hers him his how i if in into is it its may me might mine more most "
    "must my neither no nor not of off on or our out over own shall she should so some such than "
    "that the their them then there these they this those through to too under until up us was we "
    "were what when where which while who whom whose why will with would you your".split()
)


class Synonyms(Protocol):
    """A thesaurus."""

    def of(self, word: str) -> Sequence[str]:
        """Return the synonyms of a lower-case word in a fixed order; none for an unknown word."""


class WordNet:
    """The English WordNet of nltk.

    Raises:
        MissingExtraError: nltk is not installed.
        ConfigError: the data of WordNet is not installed.
    """

    def __init__(self) -> None:
        try:
            _wordnet().ensure_loaded()
        except (LookupError, OSError):  # no data, or not all of its files
            raise ConfigError(
                "augmentation substitute: the data of WordNet is not installed; run "
                "`python -m nltk.downloader wordnet`, or give substitute(rate, "
                "synonyms='file.tsv')"
            ) from None

    def of(self, word: str) -> Sequence[str]:
        """Return the other lemmas of all senses.

        Function words have none. Inflected forms have none either: a lemma would not fit.
        """
        return () if word in _FUNCTION_WORDS else other_lemmas(word)


@cache
def other_lemmas(word: str) -> tuple[str, ...]:
    """Return the lemmas that share a sense with a lower-case lemma, without itself."""
    found: dict[str, None] = {}
    for synset in _wordnet().synsets(word):
        names = [name.replace("_", " ") for name in synset.lemma_names()]
        lower = [name.lower() for name in names]
        if word in lower:
            found |= {n: None for n, low in zip(names, lower, strict=True) if low != word}
    return tuple(found)


def _wordnet() -> Any:
    try:
        return import_module("nltk.corpus").wordnet
    except ImportError:
        raise MissingExtraError(
            "augmentation substitute without synonyms='file.tsv'", "wordnet"
        ) from None


class _Listed:
    def __init__(self, table: dict[str, tuple[str, ...]]):
        self._table = table

    def of(self, word: str) -> Sequence[str]:
        return self._table.get(word, ())


def read_synonyms(path: Path) -> Synonyms:
    """Read a thesaurus: each line has a word and its synonyms, separated by tabs.

    A word on two lines has the synonyms of both. The lookup ignores case.

    Raises:
        DataError: the file cannot be read, or a line has no synonym.
    """
    table: dict[str, dict[str, None]] = {}
    for number, line in enumerate(read_lines(path, keep_blank=True), start=1):
        word, *others = [field.strip() for field in line.split("\t")]
        if not word and not any(others):
            continue
        known = {other: None for other in others if other and other.lower() != word.lower()}
        if not word or not known:
            raise DataError(
                "the line must have a word and at least one synonym, separated by tabs",
                file=path,
                line=number,
            )
        table.setdefault(word.lower(), {}).update(known)
    if not table:
        raise DataError(
            "the file has no synonyms; write a word, a tab and its synonyms on each line", file=path
        )
    return _Listed({word: tuple(others) for word, others in table.items()})
