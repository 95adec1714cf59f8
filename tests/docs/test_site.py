"""The site builds strictly and loads nothing from other hosts; its reference follows the code."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from simcse_kit.config import RunConfig
from simcse_kit.config_files import presets
from simcse_kit.methods import METHODS
from tests.docs.blocks import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "docs" / "hooks"))
import reference


def test_command_line_reference_names_every_command_and_option() -> None:
    import typer.main

    from simcse_kit.cli.main import app

    page = reference.cli_page()
    group = typer.main.get_command(app)
    for name, command in group.commands.items():
        assert f"## simcse {name}" in page
        for item in getattr(command, "params", []):
            assert item.param_type_name == "argument" or item.opts[0] in page


def test_configuration_reference_names_every_key_and_its_default() -> None:
    page = reference.configuration_page()
    for section in RunConfig.model_fields:
        assert f"## [{section}]" in page
    assert re.search(r"\| `learning_rate` \| number, > 0 \| `3e-05` \|", page)
    for name in METHODS:
        assert f"### {name}" in page
        for key, field in METHODS.resolve(name).Config.model_fields.items():
            assert f"| `{key}` |" in page
            assert field.description
    for name in presets():
        assert f"### {name}" in page


@pytest.mark.parametrize("table", sorted(reference.TABLES))
def test_rows_of_generated_tables_have_equal_numbers_of_cells(table: str) -> None:
    lines = reference.TABLES[table]().strip().split("\n")
    assert len(lines) > 3
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1


class _Resources(HTMLParser):
    """Addresses of what a page loads: scripts, styles, pictures and fonts, but not its links."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "link" and given.get("rel") in ("canonical", "prev", "next"):
            return
        if tag in ("script", "link", "img", "iframe", "source"):
            self.found += [given[key] or "" for key in ("src", "href") if key in given]


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_site_builds_strictly_and_loads_nothing_from_other_hosts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")
    monkeypatch.chdir(REPOSITORY)
    build(load_config(str(REPOSITORY / "mkdocs.yml"), strict=True, site_dir=str(tmp_path)))
    pages = sorted(tmp_path.rglob("*.html"))
    assert len(pages) > 15
    for page in pages:
        parser = _Resources()
        parser.feed(page.read_text(encoding="utf-8"))
        foreign = [url for url in parser.found if re.match(r"(https?:)?//", url)]
        assert not foreign, f"{page.name} loads {foreign}"
        assert "<!-- generated:" not in page.read_text(encoding="utf-8")
