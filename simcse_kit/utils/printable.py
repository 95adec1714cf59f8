"""Text from files, models and servers, escaped for display on a terminal.

Control characters can change a terminal's title, clear its screen or overwrite lines, and
bidirectional controls can display text in another order. Both are replaced by Python's escapes.
"""

from __future__ import annotations

import unicodedata

__all__ = ["one_line", "visible"]

# Joiners are needed for emoji and for Indic and Persian words, and do not move text.
_JOINERS = "\u200c\u200d"


def visible(text: str, *, kept: str = "\n\t") -> str:
    """Escape control, format and unassigned characters.

    Args:
        text: any string, including lone surrogates.
        kept: control characters that are not escaped.
    """
    if text.isprintable():
        return text
    return "".join(c if _is_harmless(c) or c in kept else ascii(c)[1:-1] for c in text)


def one_line(text: str) -> str:
    """Escape like :func:`visible`, including tabs and line ends."""
    return visible(text, kept="")


def _is_harmless(character: str) -> bool:
    return (
        character.isprintable()
        or character in _JOINERS
        or unicodedata.category(character) == "Zs"  # spaces of several widths
    )
