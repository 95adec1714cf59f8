"""Who may write into an output folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from simcse_kit.config import RunConfig, load_config
from simcse_kit.errors import ConfigError
from simcse_kit.training.folder import check_folder, claim_folder


def config_for(folder: Path) -> RunConfig:
    return load_config(overrides=[{"training": {"output": str(folder)}}])


def check(folder: Path, *, resume: bool = False, overwrite: bool = False, data: str = "d") -> Path:
    return check_folder(config_for(folder), data, resume=resume, overwrite=overwrite)


def claim(folder: Path, *, resume: bool = False) -> None:
    claim_folder(folder, config_for(folder), "d", resume=resume)


def checkpoint(folder: Path, step: int) -> Path:
    place = folder / "checkpoints" / f"checkpoint-{step}"
    place.mkdir(parents=True)
    return place


def test_checking_makes_nothing_claiming_writes_the_configuration(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    assert check(folder) == folder
    assert not folder.parent.exists()
    claim(folder)
    assert load_config(file=folder / "run.toml") == config_for(folder)


def test_an_empty_folder_will_do(tmp_path: Path) -> None:
    assert check(tmp_path) == tmp_path


def test_foreign_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("", encoding="utf-8")
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match="holds other files"):
            check(tmp_path, overwrite=overwrite)


def test_an_earlier_run_takes_overwrite(tmp_path: Path) -> None:
    claim(tmp_path)
    checkpoint(tmp_path, 4)
    for name in ("metrics.jsonl", "result.json", "training.html", "config.json", "mine.txt"):
        (tmp_path / name).write_text("old", encoding="utf-8")
    with pytest.raises(ConfigError, match="holds an earlier run"):
        check(tmp_path)
    check(tmp_path, overwrite=True)
    assert list(tmp_path.glob("checkpoints/checkpoint-*"))
    claim(tmp_path)
    assert not list(tmp_path.glob("checkpoints/checkpoint-*"))
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["checkpoints", "mine.txt", "run.toml"]


def test_nothing_to_resume(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing to resume.*run without --resume"):
        check(tmp_path / "new", resume=True)
    claim(tmp_path)
    check(tmp_path, resume=True)  # it was begun, and begins with its first step


def test_resuming_keeps_what_is_there(tmp_path: Path) -> None:
    claim(tmp_path)
    kept = checkpoint(tmp_path, 4)
    check(tmp_path, resume=True)
    claim(tmp_path, resume=True)
    assert kept.is_dir()


def test_the_folder_may_be_spelled_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim(tmp_path / "out")
    checkpoint(tmp_path / "out", 4)
    monkeypatch.chdir(tmp_path)
    check(Path("out"), resume=True)


def test_other_text_is_not_resumed(tmp_path: Path) -> None:
    claim(tmp_path)
    checkpoint(tmp_path, 4)
    with pytest.raises(ConfigError, match="the training text has other content"):
        check(tmp_path, resume=True, data="e")


def test_a_damaged_configuration_is_named(tmp_path: Path) -> None:
    claim(tmp_path)
    checkpoint(tmp_path, 4)
    (tmp_path / "run.toml").write_text("[", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"run\.toml is not valid TOML"):
        check(tmp_path, resume=True)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match=r"cannot be used: .*file is a file"):
            check(folder)


def test_a_name_that_the_system_refuses(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be used: File name too long"):
        check(tmp_path / ("x" * 300))


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ConfigError, match="no permission to write"):
        check(tmp_path / "new")
