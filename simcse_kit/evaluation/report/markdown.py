"""The report as Markdown: the tables of the page, without its pictures."""

from __future__ import annotations

import re
from collections.abc import Sequence

from simcse_kit.evaluation.report.numbers import DASH
from simcse_kit.evaluation.report.tables import Table
from simcse_kit.utils.printable import one_line

__all__ = ["escaped", "markdown"]


def markdown(title: str, sections: Sequence[tuple[str, str, Sequence[tuple[str, Table]]]]) -> str:
    """A document of sections, each with a sentence and tables that have a heading or none.

    Names and sentences are escaped, so that none of them is read as markup.
    """
    lines = [f"# {escaped(title)}", ""]
    for heading, lead, tables in sections:
        if not tables:
            continue
        lines += [f"## {escaped(heading)}", ""]
        lines += [lead, ""] if lead else []
        for name, table in tables:
            lines += [f"### {escaped(name)}", ""] if name else []
            lines += _table(table)
    return "\n".join(lines)


def _table(table: Table) -> list[str]:
    lines = [
        f"| | {' | '.join(map(escaped, table.columns))} |",
        f"|---|{'---:|' * len(table.columns)}",
    ]
    for row in table.rows:
        name = f"{row.name} ({row.hint})" if row.hint else row.name
        name = f"{name} / {row.second}" if row.second else name
        cells = " | ".join(
            escaped(f"{cell.text} ({cell.note})" if cell.note else cell.text) for cell in row.cells
        )
        lines.append(f"| {escaped(name)} | {cells} |")
    notes = [*table.notes]
    if table.explained:
        notes.append(f"What {DASH} stands for: {' '.join(table.explained)}")
    return [*lines, "", *(line for note in notes for line in (escaped(note), ""))]


def escaped(text: str) -> str:
    """Text on one line that Markdown shows as it is: no markup, link, mention or HTML."""
    plain = re.sub(r"([\\`*_{}\[\]<>|#~$&@])", r"\\\1", one_line(" ".join(text.split())))
    # GitHub makes links of bare addresses.
    return re.sub(r"(?i)(:)(?=//)|(?<=\bwww)(\.)", r"\\\g<0>", plain)
