"""Tables of text cells, rendered as plain text, Markdown or HTML."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from simcse_kit.utils.printable import one_line

__all__ = [
    "DASH",
    "Cell",
    "Row",
    "Table",
    "escaped",
    "render_html",
    "render_markdown",
    "render_text",
]

DASH = "\u2013"
"""The text of a cell without a value."""

_GAP = "  "


@dataclass(frozen=True, slots=True)
class Cell:
    """One table cell.

    Attributes:
        text: The visible text.
        reason: Why there is no value, if ``text`` is :data:`DASH`; otherwise empty.
        trend: ``"better"``, ``"worse"`` or ``""``; set on differences only.
        note: A short addition in parentheses, such as the cosine of a sentence.
    """

    text: str
    reason: str = ""
    trend: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One table row.

    Attributes:
        name: The text of the first column.
        cells: One cell for each further column.
        kind: CSS class of the row in HTML, such as ``"total"``.
        hint: Small text after the name.
        marks: One position from 0 to 100 for each model, drawn as dots on a scale in HTML.
        second: The second sentence of a row that is named by a pair of sentences.
    """

    name: str
    cells: tuple[Cell, ...]
    kind: str = ""
    hint: str = ""
    marks: tuple[float | None, ...] = ()
    second: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose first column names the rows.

    Attributes:
        columns: Headings of all columns except the first.
        rows: The rows from top to bottom.
        notes: Sentences below the table.
        head: Heading of the first column.
    """

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    head: str = ""

    @classmethod
    def of_text(cls, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
        """Make a table from the headings of all columns and the texts of all rows.

        Examples:
            >>> table = Table.of_text(["task", "score"], [["STS12", "70.1"], ["STSB", "8.25"]])
            >>> print(render_text(table))
            task   score
            STS12   70.1
            STSB    8.25
        """
        lines = tuple(Row(name, tuple(map(Cell, cells))) for name, *cells in rows)
        return cls(tuple(heads[1:]), lines, head=heads[0])

    @property
    def reasons(self) -> tuple[str, ...]:
        """The distinct reasons for missing values, in order of appearance."""
        cells = (cell for row in self.rows for cell in row.cells)
        return tuple(dict.fromkeys(c.reason for c in cells if c.text == DASH and c.reason))


def render_text(table: Table, *, width: int | None = None) -> str:
    """Render a table for a terminal: the first column left-aligned, the others right-aligned.

    Hints, notes and reasons are not shown.

    Args:
        table: The table.
        width: Maximum number of characters in a line. Columns that do not fit continue in a
            further block below, which repeats the first column. None means no limit.
    """
    lines = [[table.head, *table.columns]]
    lines += [[row.name, *(cell.text for cell in row.cells)] for row in table.rows]
    columns = [[one_line(cell) for cell in column] for column in zip(*lines, strict=True)]
    longest = [max(map(len, column)) for column in columns]
    names, *others = columns
    names = [name.ljust(longest[0]) for name in names]
    blocks: list[list[list[str]]] = []
    used = 0
    for column, length in zip(others, longest[1:], strict=True):
        used += len(_GAP) + length
        if not blocks or (width is not None and used > width):
            blocks.append([names])
            used = longest[0] + len(_GAP) + length
        blocks[-1].append([cell.rjust(length) for cell in column])
    return "\n\n".join(
        "\n".join(_GAP.join(cells).rstrip() for cells in zip(*block, strict=True))
        for block in blocks
    )


def render_markdown(table: Table, *, raw: bool = False) -> str:
    r"""Render a table as GitHub Markdown, with its notes below.

    Args:
        table: The table.
        raw: Leave the cells unescaped and all columns left-aligned, for a table of trusted text
            that is also read in a terminal.

    Examples:
        >>> print(render_markdown(Table.of_text(["task", "score"], [["STS*", "70.1"]])))
        | task | score |
        |---|---:|
        | STS\* | 70.1 |
    """
    escape = str if raw else escaped
    lines = [[escape(table.head), *map(escape, table.columns)]]
    for row in table.rows:
        name = f"{row.name} ({row.hint})" if row.hint else row.name
        name = f"{name} / {row.second}" if row.second else name
        cells = (f"{cell.text} ({cell.note})" if cell.note else cell.text for cell in row.cells)
        lines.append([escape(name), *map(escape, cells)])
    marked = [f"| {' | '.join(cells)} |" for cells in lines]
    marked.insert(1, f"|---|{('---|' if raw else '---:|') * len(table.columns)}")
    notes = [*table.notes]
    if table.reasons:
        notes.append(f"Meaning of {DASH}: {' '.join(table.reasons)}")
    return "\n\n".join(["\n".join(marked), *map(escape, notes)])


def escaped(string: str) -> str:
    r"""Escape text for one line of Markdown: no markup, link, mention or HTML remains.

    Examples:
        >>> print(escaped("*see* https://a.b"))
        \*see\* https\://a.b
    """
    plain = re.sub(r"([\\`*_{}\[\]<>|#~$&@])", r"\\\1", one_line(" ".join(string.split())))
    # GitHub turns bare addresses into links.
    return re.sub(r"(?i)(:)(?=//)|(?<=\bwww)(\.)", r"\\\g<0>", plain)


def render_html(table: Table, label: str, *, scale: bool = False) -> Markup:
    """Render a table as HTML, with its notes below.

    All text is escaped, and every name is isolated in a ``<bdi>`` element, so that right-to-left
    text does not reorder its surroundings.

    Args:
        table: The table.
        label: Description of the table for screen readers.
        scale: Draw the marks of every row as dots in an additional column.
    """
    heads = [Markup('<th scope="col">{}</th>').format(one_line(table.head))]
    heads += [_HEAD.format(_isolated(column)) for column in table.columns]
    if scale:
        heads.append(Markup('<th scope="col" class="dots"><span>0</span><span>100</span></th>'))
    lines = [_line("", heads)]
    for row in table.rows:
        cells = [_name(row), *map(_cell, row.cells)]
        lines.append(_line(row.kind, [*cells, _dots(row.marks)] if scale else cells))
    notes = [_NOTE.format(_isolated(note)) for note in table.notes]
    if table.reasons:
        notes.append(_NOTE.format(one_line(f"Meaning of {DASH}: {' '.join(table.reasons)}")))
    body = Markup("\n").join(lines[1:])
    return _TABLE.format(one_line(label), lines[0], body) + Markup("").join(notes)


_TABLE = Markup(
    '<div class="scroll" role="region" aria-label="{}" tabindex="0">\n'
    "<table>\n<thead>\n{}\n</thead>\n<tbody>\n{}\n</tbody>\n</table>\n</div>\n"
)
_HEAD = Markup('<th scope="col" class="number">{}</th>')
_NOTE = Markup('<p class="note">{}</p>\n')


def _isolated(string: str) -> Markup:
    return Markup("<bdi>{}</bdi>").format(one_line(string))


def _line(kind: str, cells: Sequence[Markup]) -> Markup:
    opening = Markup('<tr class="{}">').format(kind) if kind else Markup("<tr>")
    return opening + Markup("\n").join(["", *cells, ""]) + Markup("</tr>")


def _name(row: Row) -> Markup:
    shown = _isolated(row.name)
    if row.second:
        shown += Markup(" / ") + _isolated(row.second)
    if row.hint:
        shown += Markup(" <small>{}</small>").format(one_line(row.hint))
    return Markup('<th scope="row">{}</th>').format(shown)


def _cell(cell: Cell) -> Markup:
    if cell.reason:
        shown = Markup('<abbr title="{}">{}</abbr>').format(one_line(cell.reason), cell.text)
    else:
        shown = _isolated(cell.text)
        shown += Markup(" ({})").format(one_line(cell.note)) if cell.note else ""
    return Markup('<td class="{}">{}</td>').format(f"number {cell.trend}".rstrip(), shown)


def _dots(marks: Sequence[float | None]) -> Markup:
    """Draw the marks on a scale, with a bar between the two marks of a comparison."""
    drawn = Markup("")
    known = [mark for mark in marks if mark is not None]
    if len(marks) == len(known) == 2:
        bar = Markup('<i class="bar" style="left:{:.2f}%;right:{:.2f}%"></i>')
        drawn += bar.format(min(known), 100 - max(known))
    for number, mark in enumerate(marks):
        if mark is not None:
            series = number % 6 + 1 if len(marks) > 1 else 2
            dot = Markup('<i class="dot series-{}" style="left:{:.2f}%"></i>')
            drawn += dot.format(series, mark)
    track = Markup('<td class="dots" aria-hidden="true"><span class="track">{}</span></td>')
    return track.format(drawn)
