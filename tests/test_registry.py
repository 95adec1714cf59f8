"""Tables of names."""

from __future__ import annotations

import sys

import pytest

from simcse_kit.errors import ConfigError
from simcse_kit.registry import Registry, closest


def test_a_name_is_imported_when_it_is_resolved() -> None:
    registry = Registry("tool", {"lister": "this_is_no_module:X", "path": "pathlib:Path"})
    assert registry.resolve("path") is sys.modules["pathlib"].Path
    with pytest.raises(ModuleNotFoundError):
        registry.resolve("lister")


def test_it_is_a_mapping_that_later_changes_do_not_reach() -> None:
    entries = {"a": "m:A", "b": "m:B"}
    registry = Registry("tool", entries)
    entries["c"] = "m:C"
    assert dict(registry) == {"a": "m:A", "b": "m:B"}
    assert "c" not in registry
    assert len(registry) == 2


def test_an_unknown_name_gets_the_names_and_the_closest() -> None:
    registry = Registry("method", {"simcse": "m:A", "other": "m:B"})
    with pytest.raises(ConfigError) as caught:
        registry.resolve("simsce")
    assert str(caught.value) == (
        "unknown method 'simsce' (did you mean 'simcse'?); known: other, simcse"
    )


def test_nothing_is_close() -> None:
    assert closest("zzz", ["simcse"]) == ""
    assert closest("tempreature", ["temperature", "head"]) == " (did you mean 'temperature'?)"
