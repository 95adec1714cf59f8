"""Text of files, models and servers, made safe to show on a terminal.

Control characters can change a terminal's title, clear its screen or overwrite lines; bidirectional
controls can show text in another order than it has. Both are replaced by their escapes, as Python
writes them in a string, so that the reader sees what is there.
"""

from __future__ import annotations

import unicodedata

__all__ = ["one_line", "visible"]

# Joiners shape emoji and Indic and Persian words; they move nothing.
_JOINERS = "\u200c\u200d"


def visible(text: str, *, kept: str = "\n\t") -> str:
    """``text`` with escapes in the place of control, format and unassigned characters.

    Args:
        text: any string, lone surrogates included.
        kept: control characters that stay.
    """
    if text.isprintable():
        return text
    return "".join(c if _is_harmless(c) or c in kept else ascii(c)[1:-1] for c in text)


def one_line(text: str) -> str:
    """As :func:`visible`, with tabs and line ends escaped too: a name cannot pass for a line."""
    return visible(text, kept="")


def _is_harmless(character: str) -> bool:
    return (
        character.isprintable()
        or character in _JOINERS
        or unicodedata.category(character) == "Zs"  # spaces of several widths
    )
