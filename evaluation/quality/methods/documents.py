"""Make training documents for CPC from a free book, The Debian Administrator's Handbook.

    apt-get download debian-handbook
    python evaluation/quality/methods/documents.py debian-handbook_*.deb build/documents.txt

Writes one sentence per line and a blank line after each section. For methods that read single
sentences, also writes them without blank lines, to OUTPUT with the suffix .sentences.txt.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tarfile
import tempfile
from html.parser import HTMLParser
from pathlib import Path

ENGLISH = "usr/share/doc/debian-handbook/html/en-US/"
WORDS = range(5, 51)


class Paragraphs(HTMLParser):
    """Parser that collects the text of ``<div class="para">``, split at section titles."""

    def __init__(self) -> None:
        super().__init__()
        self.sections: list[list[str]] = [[]]
        self._open: list[bool] = []
        self._text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("h1", "h2", "h3") and self.sections[-1]:
            self.sections.append([])
        if tag == "div":
            self._open.append(dict(attrs).get("class") == "para")
            if self._open[-1]:
                self._text = []

    def handle_endtag(self, tag: str) -> None:
        if tag == "div" and self._open and self._open.pop():
            self.sections[-1].append(" ".join("".join(self._text).split()))
            self._text = []

    def handle_data(self, data: str) -> None:
        if any(self._open):
            self._text.append(data)


def sentences(paragraph: str) -> list[str]:
    parts = re.split(r"(?<=[.!?])\s+(?=[A-Z])", paragraph)
    return [part for part in parts if len(part.split()) in WORDS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", help="the .deb file of debian-handbook")
    parser.add_argument("output", type=Path, help="text file to write")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.tar"
        with data.open("wb") as file:
            subprocess.run(["dpkg-deb", "--fsys-tarfile", options.package], check=True, stdout=file)
        documents = []
        with tarfile.open(data) as tar:
            for member in sorted(tar.getmembers(), key=lambda member: member.name):
                if not member.name.removeprefix("./").startswith(ENGLISH):
                    continue
                page = tar.extractfile(member) if member.name.endswith(".html") else None
                if page is None:
                    continue
                paragraphs = Paragraphs()
                paragraphs.feed(page.read().decode("utf-8"))
                for section in paragraphs.sections:
                    lines = [line for text in section for line in sentences(text)]
                    if len(lines) > 1:
                        documents.append(lines)
    target = options.output
    target.write_text("".join("\n".join(lines) + "\n\n" for lines in documents), encoding="utf-8")
    flat = dict.fromkeys(line for lines in documents for line in lines)
    target.with_suffix(".sentences.txt").write_text("\n".join(flat) + "\n", encoding="utf-8")
    print(f"{len(documents)} documents, {sum(map(len, documents))} sentences: {target}")


if __name__ == "__main__":
    main()
