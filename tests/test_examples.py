"""Every example in a docstring of the package gives what it shows."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import simcse_kit
from simcse_kit.data.augment import AUGMENTATIONS
from simcse_kit.evaluation.tasks import TASK_KINDS
from simcse_kit.methods import METHODS

ROOT = Path(simcse_kit.__file__).parent
MODULES = [
    ".".join(("simcse_kit", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(
        ".__init__"
    )
    for path in sorted(ROOT.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_show(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMCSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for registry in (METHODS, AUGMENTATIONS, TASK_KINDS):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    outcome = doctest.testmod(import_module(name))
    assert outcome.attempted
    assert not outcome.failed
