"""Fenced blocks of Markdown pages, and how the tests treat each of them.

A block of ``sh`` or ``python`` is run. An HTML comment on the line above changes that:
``<!-- not run: REASON -->`` with one of :data:`REASONS`, or ``<!-- slow -->`` for the slow tier. A
block with ``title="NAME"`` is written to that file instead.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [
    path.relative_to(REPOSITORY).as_posix()
    for path in (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md")))
]
REASONS = {
    "needs a network",
    "needs large data",
    "needs an optional package",
    "needs a GPU",
    "needs several processors",
}
RUN = {"sh", "python"}
SHOWN = {"csv", "jsonl", "text", "toml"}

_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>not run: [^\n]*|slow) -->\n)?"
    r"^```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<code>.*?)^```$",
    re.M | re.S,
)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: path of the page in the repository.
        line: line of the page on which the code begins.
        language: the word after the backticks.
        title: name of the file that the block shows, or "".
        mark: text of the comment above the block, or "".
        code: the lines between the fences.
    """

    page: str
    line: int
    language: str
    title: str
    mark: str
    code: str

    def commands(self) -> list[list[str]]:
        """Return the words of each command of an ``sh`` block."""
        lines = self.code.replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def blocks_of(page: str) -> list[Block]:
    """Return the fenced blocks of a page."""
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    return [
        Block(
            page,
            text.count("\n", 0, found.start("code")) + 1,
            found["language"],
            found["title"] or "",
            found["mark"] or "",
            found["code"],
        )
        for found in _BLOCK.finditer(text)
    ]
