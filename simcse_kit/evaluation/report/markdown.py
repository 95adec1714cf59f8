"""The report as Markdown: the tables of the page, without its pictures."""

from __future__ import annotations

import re
from collections.abc import Sequence

from simcse_kit.evaluation.report.numbers import DASH
from simcse_kit.evaluation.report.tables import Table

__all__ = ["markdown"]


def markdown(title: str, sections: Sequence[tuple[str, str, Sequence[tuple[str, Table]]]]) -> str:
    """A document of sections, each with a sentence and tables that have a heading or none.

    Names and sentences are escaped, so that none of them is read as markup.
    """
    lines = [f"# {_plain(title)}", ""]
    for heading, lead, tables in sections:
        if not tables:
            continue
        lines += [f"## {_plain(heading)}", ""]
        lines += [lead, ""] if lead else []
        for name, table in tables:
            lines += [f"### {_plain(name)}", ""] if name else []
            lines += _table(table)
    return "\n".join(lines)


def _table(table: Table) -> list[str]:
    lines = [
        f"| | {' | '.join(map(_plain, table.columns))} |",
        f"|---|{'---:|' * len(table.columns)}",
    ]
    for row in table.rows:
        name = f"{row.name} ({row.hint})" if row.hint else row.name
        cells = " | ".join(_plain(cell.text) for cell in row.cells)
        lines.append(f"| {_plain(name)} | {cells} |")
    notes = [*table.notes]
    if table.explained:
        notes.append(f"What {DASH} stands for: {' '.join(table.explained)}")
    return [*lines, "", *(line for note in notes for line in (_plain(note), ""))]


def _plain(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>|#~$&])", r"\\\1", " ".join(text.split()))
