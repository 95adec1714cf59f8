"""Numbers of comparisons as cells of tables."""

from __future__ import annotations

import math

from simcse_kit.evaluation.statistics.bootstrap import Interval

__all__ = ["interval_cell", "p_cell"]


def interval_cell(interval: Interval, *, sign: bool = False) -> str:
    """Format an estimate and its interval.

    Args:
        interval: The estimate and its bounds.
        sign: Whether a plus is written before positive estimates and bounds.

    Examples:
        >>> interval_cell(Interval(1.5, -0.25, 3.0), sign=True)
        '+1.50 [-0.25, +3.00]'
    """
    if math.isnan(interval.estimate):
        return "undefined"
    form = "+.2f" if sign else ".2f"
    if math.isnan(interval.low):
        return f"{interval.estimate:{form}} [undefined]"
    return f"{interval.estimate:{form}} [{interval.low:{form}}, {interval.high:{form}}]"


def p_cell(value: float) -> str:
    """Format a p-value; a dash if it is undefined."""
    if math.isnan(value):
        return "-"
    return "<0.001" if value < 0.001 else f"{value:.3f}"
