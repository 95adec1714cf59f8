"""The folder ``evaluation/``: its scripts start, their imports resolve, and named files exist."""

from __future__ import annotations

import ast
import importlib
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
EVALUATION = REPOSITORY / "evaluation"
MODULES = sorted(EVALUATION.rglob("*.py"))
# The parts of the speed benchmarks are imported by their scripts.
PARTS = ("gpu", "harness", "variants")
SCRIPTS = [path for path in MODULES if path.parent.name not in PARTS]
SHELL_SCRIPTS = sorted(EVALUATION.rglob("*.sh"))
TEXTS = [
    *(REPOSITORY / name for name in ("README.md", "CHANGELOG.md", "Makefile")),
    *sorted(EVALUATION.rglob("*.md")),
    *MODULES,
    *SHELL_SCRIPTS,
]
NOT_ALWAYS_INSTALLED = {"atheris", "mteb", "sentence_transformers", "sklearn"}


def relative(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


@pytest.mark.parametrize("script", SCRIPTS, ids=relative)
def test_a_script_starts_and_prints_its_usage(
    script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(script.parent))
    monkeypatch.setattr(sys, "argv", [script.name, "--help"])
    loaded = set(sys.modules)
    try:
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(script), run_name="__main__")
    except ModuleNotFoundError as error:
        if error.name not in NOT_ALWAYS_INSTALLED:
            raise
        pytest.skip(f"{error.name} is not installed")
    finally:
        for name in {name for name in sys.modules if name.split(".")[0] in PARTS} - loaded:
            del sys.modules[name]
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("usage: ")


@pytest.mark.parametrize("module", MODULES, ids=relative)
def test_every_import_from_the_package_resolves(module: Path) -> None:
    """Imports inside functions too, which ``--help`` does not reach."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "simcse_kit":
                    importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("simcse_kit"):
            source = importlib.import_module(str(node.module))
            for alias in node.names:
                if not hasattr(source, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")


@pytest.mark.parametrize("script", SHELL_SCRIPTS, ids=relative)
def test_a_shell_script_has_no_syntax_error(script: Path) -> None:
    shell = "bash" if "bash" in script.read_text(encoding="utf-8").split("\n")[0] else "sh"
    done = subprocess.run([shell, "-n", str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("text", TEXTS, ids=relative)
def test_files_of_the_folder_that_a_text_names_exist(text: Path) -> None:
    content = text.read_text(encoding="utf-8")
    names = re.findall(r"(?<![\w/])evaluation/[\w./-]*\w", content)
    assert [name for name in names if not (REPOSITORY / name).exists()] == []
    if text.suffix == ".md":
        links = re.findall(r"\]\((?!https?://|#)([^)#\s]+)", content)
        assert [link for link in links if not (text.parent / link).exists()] == []


def test_every_folder_has_a_note() -> None:
    folders = {path.parent for path in [*SCRIPTS, *SHELL_SCRIPTS]}
    assert [relative(folder) for folder in folders if not (folder / "README.md").is_file()] == []
