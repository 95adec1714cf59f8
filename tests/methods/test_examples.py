"""The examples in the docstrings of methods, of the registry and of the monitors."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import simcse_kit
from simcse_kit.methods import METHODS

ROOT = Path(simcse_kit.__file__).parent
FILES = [*ROOT.glob("methods/**/*.py"), *ROOT.glob("training/monitor/*.py"), ROOT / "registry.py"]
MODULES = [
    ".".join(("simcse_kit", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(
        ".__init__"
    )
    for path in FILES
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_show(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(METHODS, "_entries", dict(METHODS._entries))
    assert doctest.testmod(import_module(name)).failed == 0


def test_every_method_has_an_example() -> None:
    for name in METHODS:
        assert ">>> " in str(METHODS.resolve(name).__doc__), name
