"""Numbers as the reader sees them; what is missing is a dash that says why, never a zero."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Literal

__all__ = [
    "DASH",
    "Better",
    "Cell",
    "counted",
    "difference",
    "duration",
    "fixed",
    "is_number",
    "number",
]

DASH = "\u2013"
_MINUS = "\u2212"

Better = Literal["higher", "lower", "neither"]


@dataclass(frozen=True, slots=True)
class Cell:
    """One table cell.

    Attributes:
        text: what is shown.
        why: the explanation where ``text`` is a dash, else empty.
        trend: ``"better"``, ``"worse"`` or ``""``; set on differences only.
        note: a number about a ``text`` that is a sentence, shown behind it.
    """

    text: str
    why: str = ""
    trend: str = ""
    note: str = ""


def is_number(value: object) -> bool:
    """Whether the value is a finite number (not None, NaN or infinite)."""
    try:
        return isinstance(value, Real) and math.isfinite(value)
    except OverflowError:  # an integer beyond the range of floats
        return False


def fixed(value: float, decimals: int = 2, *, plus: str = "") -> str:
    """A finite number with fixed decimals and a true minus sign; ``plus`` goes before positives."""
    text = f"{value:,.{decimals}f}"
    if not text.strip("-0.,"):
        return text.lstrip("-")  # what rounds to zero carries no sign
    return text.replace("-", _MINUS) if value < 0 else plus + text


def number(value: float | None, decimals: int = 2, *, why: str) -> Cell:
    """A value with fixed decimals, or a dash with the reason ``why``."""
    if value is None or not is_number(value):
        return Cell(DASH, why)
    return Cell(fixed(float(value), decimals))


def difference(
    before: float | None, after: float | None, decimals: int = 2, *, better: Better = "higher"
) -> Cell:
    """``after - before`` with its sign, subtracted before rounding; a dash where one is missing.

    ``better`` says which values are the good ones, for the cell's ``trend``.
    """
    if before is None or after is None or not (is_number(before) and is_number(after)):
        return Cell(DASH, "No difference: one of the two values is missing.")
    text = fixed(float(after) - float(before), decimals, plus="+")
    if better == "neither" or text[0] not in f"+{_MINUS}":
        return Cell(text)
    return Cell(text, trend="better" if (text[0] == "+") == (better == "higher") else "worse")


def counted(count: int) -> str:
    """A count with thousands separators."""
    return f"{count:,}"


def duration(seconds: float) -> Cell:
    """A time span in words: ``4.2 s``, ``3 min 05 s``, ``2 h 07 min``."""
    if not is_number(seconds):
        return Cell(DASH, "The time was not recorded.")
    if seconds < 59.95:
        return Cell(f"{seconds:.1f} s")
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return Cell(f"{minutes} min {rest:02d} s")
    hours, minutes = divmod(minutes, 60)
    return Cell(f"{counted(hours)} h {minutes:02d} min")
