"""Matplotlib figures as inline SVG that takes colours and font from the surrounding page.

Figures are drawn with placeholder colours (the constants below). In the finished SVG each
placeholder is replaced by a CSS variable of ``style.css``, so one drawing serves light mode, dark
mode and print. Figures must not contain names of models or files: names belong in the HTML, where
the template engine escapes them.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = [
    "BINS",
    "GRID",
    "INK",
    "MUTED",
    "PAPER",
    "SERIES",
    "SMALL",
    "axes",
    "render",
    "standalone",
]

INK = "#010101"
MUTED = "#010102"
GRID = "#010103"
PAPER = "#010104"
SMALL: dict[str, Any] = {"color": MUTED, "size": 9.5}
"""Style of small text."""

SERIES = ("#020201", "#020202", "#020203", "#020204", "#020205", "#020206")
BINS = ("#030301", "#030302", "#030303", "#030304", "#030305")

_VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--line", PAPER: "--paper"}
_VARIABLES |= {color: f"--series-{i}" for i, color in enumerate(SERIES, start=1)}
_VARIABLES |= {color: f"--bin-{i}" for i, color in enumerate(BINS, start=1)}

_SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "simcse-kit",
    "font.size": 11.0,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
    "lines.linewidth": 1.8,
    "lines.solid_joinstyle": "round",
}


def axes(figure: Figure, *, left: float, right: float, bottom: float, top: float) -> Axes:
    """Add axes with margins in points, which do not grow with the figure."""
    width, height = (inches * 72 for inches in figure.get_size_inches())
    return figure.add_axes(
        (
            left / width,
            bottom / height,
            (width - left - right) / width,
            (height - bottom - top) / height,
        )
    )


def render(
    draw: Callable[[Figure], None], *, key: str, label: str, size: tuple[float, float] = (380, 250)
) -> Markup:
    """Draw a figure and return it as an ``<svg>`` element.

    The same drawing gives the same bytes: no date, no random id, no setting of the user.

    Args:
        draw: Function that fills the empty figure, with the placeholder colours only.
        key: A word unique on the page; it becomes part of every id in the SVG.
        label: Description of the figure for screen readers.
        size: Width and height in points, the unit of the SVG's coordinates.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        parameters: Any = matplotlib.rcParams
        parameters.update(_SETTINGS)
        figure = Figure(figsize=(size[0] / 72, size[1] / 72), facecolor="none")
        draw(figure)
        for pane in figure.axes:
            pane.set_facecolor("none")
        figure.savefig(
            buffer,
            format="svg",
            facecolor="none",
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    return _inline(buffer.getvalue(), key=key, label=label)


def standalone(figure: Markup, style: str) -> str:
    """Return a figure of :func:`render` as an SVG file.

    Args:
        figure: The figure.
        style: Style sheet of the page, which begins with the colours.
    """
    colours = style[: style.index("* {")]
    return str(figure).replace(">", f"><style>{colours}</style>", 1) + "\n"


def _inline(document: str, *, key: str, label: str) -> Markup:
    body = document[document.index("<svg") :]
    opening, body = body.split(">", 1)
    viewbox = re.search(r'viewBox="[^"]*"', opening)
    # Style rules of a figure would apply to the whole page; style.css has them for figures only.
    body = re.sub(r"<(metadata|style)\b.*?</\1>\s*", "", body, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->\s*", "", body, flags=re.DOTALL)
    body = body.replace("xlink:href=", "href=")
    # Figures on one page have equal ids, and must not use clip paths or markers of each other.
    body = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{key}-", body)
    body = re.sub("|".join(_VARIABLES), lambda hit: f"var({_VARIABLES[hit.group()]})", body)
    return Markup(
        f'<svg xmlns="http://www.w3.org/2000/svg" {viewbox.group() if viewbox else ""} role="img" '
        f'aria-label="{html.escape(label)}">{body.rstrip()}'
    )
