"""A configuration file alone runs no code; permissions of a command line reach its children."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from simcse_kit.config_files import load_config
from simcse_kit.errors import ConfigError
from simcse_kit.training import verify_resume
from simcse_kit.training.child_process import permission_flags
from simcse_kit.training.study import runs
from tests.training.conftest import MakeConfig, train


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that the module ``shouting`` makes as soon as it is imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    marker = tmp_path / "imported"
    (tmp_path / "shouting.py").write_text(
        f"open({str(marker)!r}, 'w').close()\n"
        "def shout(texts): return [text.upper() for text in texts]\n",
        encoding="utf-8",
    )
    monkeypatch.delitem(sys.modules, "shouting", raising=False)
    return marker


def test_a_function_runs_only_where_it_is_allowed(make_config: MakeConfig, marker: Path) -> None:
    config = make_config(
        {"data": {"augment": "call('shouting:shout')"}, "training": {"max_steps": 1}}
    )
    for _ in range(2):
        with pytest.raises(ConfigError, match="add --allow-call shouting"):
            train(config, overwrite=True)
        assert not marker.exists()
        train(config, overwrite=True, allow_call=["shouting"])
        marker.unlink(missing_ok=True)
        # What the run has written down does not allow it the next time.
        config = load_config(file=marker.parent / "out" / "run.toml")


@pytest.mark.slow
def test_the_command_line_allows_it(make_config: MakeConfig, marker: Path) -> None:
    config = make_config(
        {"data": {"augment": "call('shouting:shout')"}, "training": {"max_steps": 1}}
    )
    Path("run.toml").write_text(config.to_toml(), encoding="utf-8")
    command = [sys.executable, "-m", "simcse_kit", "train", "--config", "run.toml"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "add --allow-call shouting" in refused.stderr
    assert not marker.exists()
    subprocess.run([*command, "--allow-call", "shouting"], check=True, capture_output=True)
    assert marker.exists()


def test_children_get_what_was_allowed(make_config: MakeConfig) -> None:
    plain = make_config()
    assert permission_flags(plain, ()) == []
    trusting = make_config({"model": {"trust_remote_code": True}})
    expected = ["--allow-call", "shouting", "--set", "model.trust_remote_code=true"]
    assert permission_flags(trusting, ["shouting"]) == expected


@pytest.mark.usefixtures("marker")
def test_both_commands_pass_it_on(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    class StopError(Exception):
        pass

    def record(command: list[str], **_: Any) -> None:
        commands.append(command)
        raise StopError

    monkeypatch.setattr(subprocess, "Popen", record)
    config = make_config({"data": {"augment": "call('shouting:shout')"}})
    with pytest.raises(StopError):
        verify_resume.verify_resume(config, tmp_path, allow_call=["shouting"])
    with pytest.raises(StopError):
        runs.run_once(
            config,
            None,  # type: ignore[arg-type]
            tmp_path / "study",
            method="simcse",
            keep_encoder=False,
            allow_call=["shouting"],
        )
    for command in commands:
        assert command[command.index("--allow-call") + 1] == "shouting"
    assert len(commands) == 2
