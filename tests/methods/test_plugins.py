"""Methods from outside the package: how they are named, trained, recorded, allowed and refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from simcse_kit.cli.main import main
from simcse_kit.config import RunConfig
from simcse_kit.config_files import load_config
from simcse_kit.errors import ConfigError
from simcse_kit.methods import METHODS, build_config, find_method, register_method
from simcse_kit.methods.common.base import Method
from simcse_kit.methods.simcse import SimCSE
from simcse_kit.registry import Registry
from simcse_kit.training.api import train
from simcse_kit.training.child_process import permission_flags
from simcse_kit.training.prepare import check
from tests.small_data import run_config, write_corpus

SOURCE = """
import pathlib
pathlib.Path({marker!r}).touch()
from pydantic import Field
from simcse_kit.methods.common.base import Method, MethodOutput
from simcse_kit.methods.common.config import DropoutConfig

class Options(DropoutConfig):
    weight: float = Field(1.0, gt=0, description="factor of the loss")

class Pull(Method):
    Config = Options
    collapse_is_lowest = True

    def loss(self, embeddings, batch):
        distance = (embeddings[:, 0] - embeddings[:, 1]).square().mean()
        return MethodOutput(self.options.weight * distance, {{"distance": distance.detach()}})

def function(): ...
broken = 1
"""
NAME = "pulling.losses:Pull"


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that the package ``pulling`` in the current folder writes when it is imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SIMCSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "pulling").mkdir()
    (tmp_path / "pulling" / "__init__.py").touch()
    marker = tmp_path / "imported"
    (tmp_path / "pulling" / "losses.py").write_text(
        SOURCE.format(marker=str(marker)), encoding="utf-8"
    )
    for module in ("pulling", "pulling.losses"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    return marker


@pytest.fixture
def own_table(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """The table of methods, with what a test adds taken out again."""
    monkeypatch.setattr(METHODS, "_entries", dict(METHODS._entries))
    return METHODS


@pytest.fixture
def config(tmp_path: Path, tiny_encoder_dir: Path) -> Callable[..., RunConfig]:
    def make(name: str, **options: Any) -> RunConfig:
        corpus = write_corpus(tmp_path, "texts")
        table = {"method": {"name": name, **options}, "training": {"max_steps": 2}}
        return run_config(tiny_encoder_dir, corpus, tmp_path / "out", table)

    return make


def test_a_class_of_a_module_in_the_current_folder_is_a_method(marker: Path) -> None:
    method = find_method(NAME)
    assert marker.exists()
    assert issubclass(method, Method)
    assert method.name == "Pull"
    assert build_config(NAME, {"weight": 2}).model_dump() == {"dropout": None, "weight": 2.0}
    with pytest.raises(ConfigError, match=r"unknown key 'method\.wieght' \(did you mean 'weight'"):
        build_config(NAME, {"wieght": 2})


@pytest.mark.usefixtures("marker")
def test_a_run_with_an_outside_method_records_it_and_resumes(
    config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "simcse_kit.training.save_results.write_training_report", lambda *_, **__: None
    )
    result = train(config(NAME, weight=2.0))
    run_file = result.output / "run.toml"
    assert f'name = "{NAME}"' in run_file.read_text(encoding="utf-8")
    assert "Method `Pull`" in (result.output / "README.md").read_text(encoding="utf-8")
    assert any("distance" in row for row in result.history)
    again = load_config(file=run_file, allow_call=["pulling"])
    assert train(again, resume=True).steps == result.steps == 2


def test_a_file_cannot_import_code_without_permission(
    config: Callable[..., RunConfig], marker: Path, tmp_path: Path
) -> None:
    file = tmp_path / "run.toml"
    file.write_text(config(NAME).to_toml(), encoding="utf-8")
    for allowed in ([], ["pull"], ["pulling.other"]):
        with pytest.raises(ConfigError) as caught:
            load_config(file=file, allow_call=allowed)
        assert f"{file}: method.name = '{NAME}' imports code, which a file cannot" in str(
            caught.value
        )
        assert f"add --method {NAME}" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert load_config(file=file, allow_call=["pulling"]).method.name == NAME
    named = load_config(file=file, overrides=[{"method": {"name": NAME}}])
    assert named.method.name == NAME
    assert load_config(file=file, overrides=[{"method": {"name": "simcse"}}])
    assert not marker.exists()
    # Child processes of a study or of verify-resume are allowed what this process was.
    assert permission_flags(named, ["other"]) == ["--allow-call", "other", "--method", NAME]


def test_the_command_line_trains_an_outside_method(
    config: Callable[..., RunConfig],
    marker: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(
        "simcse_kit.training.save_results.write_training_report", lambda *_, **__: None
    )
    file = tmp_path / "run.toml"
    file.write_text(config(NAME).to_toml(), encoding="utf-8")
    command = ["simcse", "train", "--config", str(file), "--json"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert f"add --method {NAME}" in capsys.readouterr().err
    assert not marker.exists()
    monkeypatch.setattr(sys, "argv", [*command, "--method", NAME])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (0, None)
    assert json.loads(capsys.readouterr().out)["steps"] == 2


@pytest.mark.usefixtures("marker")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:Pull", "method 'no_such_module:Pull' cannot be imported: No module named"),
        ("pulling.losses:Push", "method 'pulling.losses:Push' cannot be imported: module"),
        ("pulling.losses:", "cannot be imported"),
        ("pulling.losses:broken", "'pulling.losses:broken' refers to int, which is not a subclass"),
        ("pulling.losses:function", "refers to function, which is not a subclass of simcse_kit."),
        ("pulling.losses:Options", "refers to Options, which is not a subclass of simcse_kit."),
    ],
)
def test_what_is_not_a_method_is_refused_in_one_line(
    config: Callable[..., RunConfig], name: str, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check(config(name))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_registered_method_is_found_by_its_name(own_table: Registry) -> None:
    class Own(SimCSE):
        pass

    register_method("my-own", Own)
    assert find_method("my_own") is find_method("my-own") is Own
    assert "my-own" in own_table
    register_method("my-own", Own)  # a module that is imported again
    for taken in ("simcse", "my_own", "margin-contrastive"):
        with pytest.raises(ConfigError, match="exists already; choose another name"):
            register_method(taken, SimCSE)
    for name in ("", "a b", "a.b:C", "3d"):
        with pytest.raises(ConfigError, match="cannot name a method; use letters"):
            register_method(name, Own)
    with pytest.raises(ConfigError, match=r"unknown method 'my-won' \(did you mean 'my-own'\?\)"):
        find_method("my-won")


def test_the_name_of_earlier_versions_is_an_alias() -> None:
    assert METHODS.canonical("margin-contrastive") == "margin_contrastive"
    assert find_method("margin-contrastive") is find_method("margin_contrastive")
    config = load_config(overrides=[{"method": {"name": "margin-contrastive"}}])
    assert config.method.name == "margin_contrastive"
