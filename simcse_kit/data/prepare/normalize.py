"""Normal forms of texts for comparison.

:func:`normal_key` ignores case, punctuation and spacing; :func:`letters_key`, made of the words of
:func:`sentence_words`, ignores symbols too.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable, Sequence
from html.entities import html5

__all__ = ["letters_key", "normal_key", "sentence_words"]

# Punctuation characters that carry meaning: "5 %" is not 5, "C#" is not C.
_SYMBOLS = frozenset("#%&@\u2030\u2031")
# Apostrophes, also those that Unicode classifies as letters or accents, and Treebank quotes.
_APOSTROPHES = "`\u00b4\u02b9\u02bb\u02bc\u02bd\u2018\u2019\u201b\u2032\uff07"
# Invisible characters that their category does not show, and tatweel, which stretches a word.
_INVISIBLE = (
    *(0x034F, 0x0640, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFFA0),
    *range(0x180B, 0x1810),
    *range(0xFE00, 0xFE10),
    *range(0xE0000, 0xE1000),
)
# First and last character of scripts that put no space between words.
_UNSPACED = (
    *((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x1950, 0x19DF), (0x1A20, 0x1AAF)),
    *((0x3005, 0x3007), (0x3040, 0x30FF), (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF)),
    *((0xA980, 0xA9DF), (0xAA00, 0xAA7F), (0x20000, 0x3FFFF)),
)
_GAP = " "
# Punctuation between sentences or parts of a gloss, and its replacement.
_STOPS = frozenset(".!?;:\u061b\u061f\u06d4\u0964\u0965\u2026\u203c\u2047\u2048\u2049\u3002\n")
_STOP = "\n"
# Separator of two numbers. It is punctuation, so no key contains it otherwise.
_BETWEEN = "\u00b7"
# An entity may have been escaped several times and split by a tokenizer.
_ENTITY = re.compile(r"& ?(#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31}) ?;")
_ESCAPED_TIMES = 3
_BRACKET = re.compile(r"-[lr][rsc]b-", re.IGNORECASE)
_THOUSANDS = re.compile(r"(?<=\d)[.,' ](?=\d{3}(?!\d))")
_NOT = re.compile(r"n ?'t\b")
_NUMBERS = re.compile(r"(?<=\d) +(?=\d)")
_DOT_ABOVE = "i\u0307"


class _Before(dict[int, str | None]):
    """Translation table for the step before compatibility forms are unified."""

    def __missing__(self, code: int) -> str | None:
        character = chr(code)
        kept: str | None = character
        if character in _APOSTROPHES:
            kept = "'"
        elif code in _INVISIBLE or unicodedata.category(character) == "Cf":
            kept = None
        elif character in "\u2122\u2120" or (
            # Spacing accents would become marks on the character before them.
            unicodedata.category(character) == "Sk"
            and unicodedata.normalize("NFKC", character).startswith(" ")
        ):
            kept = _GAP
        self[code] = kept
        return kept


class _Kept(dict[int, str]):
    """Translation table from folded text to a key.

    Marks are kept like letters: without the vowel signs of Indic scripts, or the accents of many
    languages, different words would become equal.

    Args:
        symbols: Whether symbols are kept.
    """

    def __init__(self, symbols: bool):
        super().__init__()
        self._symbols = symbols

    def __missing__(self, code: int) -> str:
        character = chr(code)
        kind = unicodedata.category(character)
        if kind[0] == "S" or kind == "Me" or character in _SYMBOLS:
            kept = character if self._symbols else _GAP
        elif not self._symbols and character in _STOPS:
            kept = f" {_STOP} "
        elif kind[0] not in "LNM":
            kept = _GAP
        elif not self._symbols and any(first <= code <= last for first, last in _UNSPACED):
            kept = f" {character} "
        else:
            kept = character
        self[code] = kept
        return kept


_BEFORE = _Before()
_WITH_SYMBOLS = _Kept(symbols=True)
_LETTERS = _Kept(symbols=False)


def normal_key(text: str) -> str:
    """Return the letters, marks, digits and symbols of ``text`` in lower case, without spaces.

    Compatibility forms are unified, HTML entities and Treebank brackets are resolved, and
    invisible characters are dropped. A text of punctuation alone keeps it: ``"?"`` and ``"!"``
    differ. A mark between two numbers remains: 1.5 is not 15.

    Examples:
        >>> normal_key("A cat,  sitting!") == normal_key("a cat sitting")
        True
        >>> normal_key("C#") == normal_key("C")
        False
    """
    folded = _folded(text)
    return _joined(folded.translate(_WITH_SYMBOLS).split()) or "".join(folded.split()) or text


def letters_key(text: str, own_words: Sequence[str] | None = None) -> str:
    """Return :func:`normal_key` without symbols, unless ``text`` has no letters and digits.

    Args:
        text: Any text.
        own_words: All its :func:`sentence_words`, if they are known already.
    """
    if own_words is None:
        own_words = [word for part in sentence_words(text) for word in part]
    return _joined(own_words) or normal_key(text)


def sentence_words(text: str) -> list[list[str]]:
    """Return the words of each sentence of ``text`` in lower case, without punctuation and symbols.

    Every full stop, colon or semicolon ends a sentence, even in an abbreviation; sentences without
    words are left out. Contractions are split, whether or not a tokenizer has split them before:
    "don't", "don 't" and "do n't" give do, n, t. In scripts without spaces every character is a
    word.

    Examples:
        >>> sentence_words("It rains. Don't go!")
        [['it', 'rains'], ['do', 'n', 't', 'go']]
    """
    folded = _folded(text)
    if "'t" in folded:
        folded = _NOT.sub(" n t", folded)
    parts = (part.split() for part in folded.translate(_LETTERS).split(_STOP))
    return [part for part in parts if part]


def _joined(parts: Iterable[str]) -> str:
    return _NUMBERS.sub(_BETWEEN, " ".join(parts)).replace(" ", "")


def _folded(text: str) -> str:
    if "&" in text:
        text = _unescaped(text)
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text.translate(_BEFORE)).casefold()
        text = unicodedata.normalize("NFKC", text).replace(_DOT_ABOVE, "i")
    else:
        text = text.lower().replace("`", "'")
    if "b-" in text:
        text = _BRACKET.sub(_GAP, text)
    return _THOUSANDS.sub("", text)


def _unescaped(text: str) -> str:
    for _ in range(_ESCAPED_TIMES):
        plain = _ENTITY.sub(_character, text)
        if plain == text:
            break
        text = plain
    return text


def _character(entity: re.Match[str]) -> str:
    name = entity[1]
    if name[0] != "#" and f"{name};" not in html5:
        return entity[0]
    return html.unescape(f"&{name};")
