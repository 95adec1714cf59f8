"""Registries of names."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from simcse_kit.errors import ConfigError
from simcse_kit.registry import Registry, closest, is_within


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


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package on the path that declares two entry points, one with a name that is taken."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "extra_tools.py").write_text("class Saw:\n    pass\n", encoding="utf-8")
    folder = tmp_path / "extra_tools-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Name: extra-tools\nVersion: 1.0\n", encoding="utf-8")
    (folder / "entry_points.txt").write_text(
        "[test.tools]\nsaw = extra_tools:Saw\npath = extra_tools:Saw\n", encoding="utf-8"
    )
    return tmp_path


@pytest.mark.usefixtures("installed")
def test_installed_packages_add_names(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry("tool", {"path": "pathlib:Path"}, group="test.tools")
    monkeypatch.delitem(sys.modules, "extra_tools", raising=False)
    assert list(registry) == ["path", "saw"]
    assert "extra_tools" not in sys.modules
    assert registry.resolve("saw").__name__ == "Saw"
    assert registry.resolve("path") is Path
    assert "entry point extra_tools:Saw of group test.tools is skipped" in caplog.text
    assert "the tool 'path' exists already" in caplog.text


@pytest.mark.usefixtures("installed")
def test_a_known_name_does_not_look_at_installed_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry("tool", {"path": "pathlib:Path"}, group="test.tools")
    monkeypatch.setattr(Registry, "load_entry_points", lambda *_: pytest.fail("looked"))
    assert registry.resolve("path") is Path


@pytest.mark.usefixtures("installed")
def test_only_a_table_with_a_group_takes_a_module_and_attribute() -> None:
    assert Registry("tool", {}, group="none").resolve("extra_tools:Saw").__name__ == "Saw"
    with pytest.raises(ConfigError, match="unknown tool 'extra_tools:Saw'"):
        Registry("tool", {"a": "m:A"}).resolve("extra_tools:Saw")


def test_a_target_of_the_wrong_class_is_refused() -> None:
    registry = Registry("tool", {}, group="none", base="pathlib:PurePath")
    registry.register("good", "pathlib:PosixPath")
    registry.register("bad", dict)
    assert registry.resolve("good").__name__ == "PosixPath"
    with pytest.raises(ConfigError, match=r"tool 'bad' refers to dict, .* pathlib\.PurePath"):
        registry.resolve("bad")


def test_hyphens_and_underscores_are_equivalent() -> None:
    registry = Registry("tool", {"long_saw": "pathlib:Path"})
    assert registry.resolve("long-saw") is Path
    assert registry["long-saw"] == "pathlib:Path"
    assert registry.canonical("short-saw") == "short-saw"


@pytest.mark.parametrize(
    ("module", "modules", "expected"),
    [("a.b:C", ["a"], True), ("a.b", ["a.b"], True), ("ab:C", ["a"], False), ("a:C", [], False)],
)
def test_a_module_belongs_to_its_packages(module: str, modules: list[str], expected: bool) -> None:
    assert is_within(module, modules) is expected
