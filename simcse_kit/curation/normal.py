"""The form of a text in which case, punctuation and spacing do not count."""

from __future__ import annotations

import unicodedata

__all__ = ["normal_form"]


class _NoPunctuation(dict[int, str | None]):
    """What becomes of each character; filled on use.

    Only punctuation goes: dropping all that is not ``\\w`` would drop the vowel signs of Indic
    scripts, and with them the difference between words.
    """

    def __missing__(self, code: int) -> str | None:
        character = chr(code)
        kept: str | None = character
        if unicodedata.category(character).startswith("P"):
            # Within a word nothing, else a gap: "don't" is one word, "well-known" two.
            kept = None if character in "'\u2019" else " "
        self[code] = kept
        return kept


_TABLE = _NoPunctuation()


def normal_form(text: str) -> str:
    """``text`` in lower case, without punctuation, with single spaces, compatibility forms unified.

    A text of punctuation alone keeps it: ``"?"`` and ``"!"`` stay different.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.translate(_TABLE).split()) or " ".join(folded.split())
