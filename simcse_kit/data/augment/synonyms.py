"""Where synonyms come from: WordNet, or a file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from simcse_kit.data.lines import read_lines
from simcse_kit.errors import ConfigError, DataError, MissingExtraError

__all__ = ["Synonyms", "WordNet", "read_synonyms"]


# WordNet has nouns and units that are spelled as these: "he" is helium, "a" the angstrom.
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
        """Synonyms of a word in lower case, in a fixed order; none where it is not known."""


class WordNet:
    """English WordNet, as nltk reads it. The data is opened at the first word in each process.

    Raises:
        MissingExtraError: nltk is not installed.
        ConfigError: nltk has not the data.
    """

    def __init__(self) -> None:
        try:
            _wordnet().ensure_loaded()
        except (LookupError, OSError):  # no data, or not all of its files
            raise ConfigError(
                "augmentation substitute: nltk is installed but not the data of WordNet; run "
                "`python -m nltk.downloader wordnet`, or give substitute(rate, "
                "synonyms='file.tsv')"
            ) from None

    def of(self, word: str) -> Sequence[str]:
        """The other lemmas of all senses; none for function words, nor for inflected forms, which
        their lemmas do not fit."""
        return () if word in _FUNCTION_WORDS else _lemmas_beside(word)


@cache
def _lemmas_beside(word: str) -> tuple[str, ...]:
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
    """Read a thesaurus: on each line a word and its synonyms, with tabs between them.

    A word on two lines has the synonyms of both. Capitals do not matter to the word looked up.

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
                "must hold a word and at least one synonym, with tabs between them",
                file=path,
                line=number,
            )
        table.setdefault(word.lower(), {}).update(known)
    if not table:
        raise DataError("holds no synonyms; each line is a word, a tab, its synonyms", file=path)
    return _Listed({word: tuple(others) for word, others in table.items()})
