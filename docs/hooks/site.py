"""mkdocs hooks: generated pages and tables, and links to files of the repository."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(Path(__file__).resolve().parent)]

from reference import PAGES, TABLES  # noqa: E402

_TABLE = re.compile(r"^<!-- generated: (\w+) -->$", re.M)
_OUTSIDE = re.compile(r"\[([^\]]*)\]\(((?:\.\./)+)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages that are generated from the code."""
    for path, make in PAGES.items():
        files.append(File.generated(config, path, content=make()))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Fill in generated tables and resolve links that lead out of ``docs/``."""
    markdown = _TABLE.sub(lambda found: TABLES[found[1]](), markdown)
    folder = Path(page.file.src_uri).parent

    def resolved(link: re.Match[str]) -> str:
        text, up, path, anchor = link[1], link[2], link[3], link[4] or ""
        levels = up.count("../")
        if levels <= len(folder.parts):  # stays inside docs/
            return link[0]
        if not (REPOSITORY / path).exists():
            raise PluginError(f"{page.file.src_uri} links to {path}, which does not exist")
        if config.repo_url:
            return f"[{text}]({config.repo_url.rstrip('/')}/blob/main/{path}{anchor})"
        return f"{text} (`{path}`)" if path not in text else f"`{path}`"

    return _OUTSIDE.sub(resolved, markdown)
