"""Numbers formatted for readers; a missing value is a dash with a reason, never a zero."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Literal

from simcse_kit.utils.tables import DASH, Cell

__all__ = [
    "Better",
    "compared",
    "counted",
    "difference",
    "duration",
    "fixed",
    "is_number",
    "number",
    "text_cells",
]

_MINUS = "\u2212"

Better = Literal["higher", "lower", "neither"]


def is_number(value: object) -> bool:
    """Return whether the value is a finite number (not None, NaN or infinite)."""
    try:
        return isinstance(value, Real) and math.isfinite(value)
    except OverflowError:  # an integer beyond the range of floats
        return False


def fixed(value: float, decimals: int = 2, *, plus: str = "") -> str:
    """Format a finite number with fixed decimals, a true minus sign, and ``plus`` if positive.

    Examples:
        >>> fixed(1234.5), fixed(0.25, plus="+"), fixed(-0.001)
        ('1,234.50', '+0.25', '0.00')
    """
    text = f"{value:,.{decimals}f}"
    if not text.strip("-0.,"):
        return text.lstrip("-")  # what rounds to zero carries no sign
    return text.replace("-", _MINUS) if value < 0 else plus + text


def number(value: float | None, decimals: int = 2, *, reason: str) -> Cell:
    """Format a value with fixed decimals, or give a dash with the reason."""
    if value is None or not is_number(value):
        return Cell(DASH, reason)
    return Cell(fixed(float(value), decimals))


def difference(
    before: float | None, after: float | None, decimals: int = 2, *, better: Better = "higher"
) -> Cell:
    """Format ``after - before`` with its sign, subtracted before rounding.

    The trend of the cell depends on whether higher or lower values are ``better``. A missing value
    gives a dash.
    """
    if before is None or after is None or not (is_number(before) and is_number(after)):
        return Cell(DASH, "No difference: one of the two values is missing.")
    text = fixed(float(after) - float(before), decimals, plus="+")
    if better == "neither" or text[0] not in f"+{_MINUS}":
        return Cell(text)
    return Cell(text, trend="better" if (text[0] == "+") == (better == "higher") else "worse")


def compared(
    values: Sequence[float | None],
    reasons: Sequence[str],
    decimals: int = 2,
    better: Better = "higher",
) -> tuple[Cell, ...]:
    """Format one value for each model, or the reason why it is missing; of two the difference."""
    cells = [number(v, decimals, reason=r) for v, r in zip(values, reasons, strict=True)]
    if len(values) == 2:
        cells.append(difference(values[0], values[1], decimals, better=better))
    return tuple(cells)


def text_cells(texts: Iterable[str | None], reason: str) -> tuple[Cell, ...]:
    """Make a cell of each text, and a dash with the reason of each None."""
    return tuple(Cell(DASH, reason) if text is None else Cell(text) for text in texts)


def counted(count: int) -> str:
    """Format a count with thousands separators."""
    return f"{count:,}"


def duration(seconds: float) -> Cell:
    """Format a time span: ``4.2 s``, ``3 min 05 s``, ``2 h 07 min``."""
    if not is_number(seconds):
        return Cell(DASH, "The time was not recorded.")
    if seconds < 59.95:
        return Cell(f"{seconds:.1f} s")
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return Cell(f"{minutes} min {rest:02d} s")
    hours, minutes = divmod(minutes, 60)
    return Cell(f"{counted(hours)} h {minutes:02d} min")
