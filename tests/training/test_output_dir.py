"""The output folder of a run: who may write into it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from simcse_kit.config import RunConfig
from simcse_kit.config_files import load_config
from simcse_kit.errors import ConfigError
from simcse_kit.training.state import replacement
from simcse_kit.training.state.output_dir import check_output, claim_folder
from simcse_kit.training.state.replacement import put_in_place
from simcse_kit.training.state.resume import check_resumable


def config_for(folder: Path) -> RunConfig:
    return load_config(overrides=[{"training": {"output": str(folder)}}])


def check(folder: Path, *, resume: bool = False, overwrite: bool = False, data: str = "d") -> Path:
    place = check_output(folder, resume=resume, overwrite=overwrite)
    if resume:
        resumable(place, folder, data)
    return place


def resumable(place: Path, folder: Path, data: str = "d", held_out: str = "h") -> None:
    check_resumable(
        place,
        config_for(folder),
        fingerprint=data,
        held_out=held_out,
        held_out_before="before",
        allow_changed=False,
    )


def claim(folder: Path, *, resume: bool = False, place: Path | None = None) -> None:
    claim_folder(place or folder, folder, config_for(folder), "d", "h", resume=resume)


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
        with pytest.raises(ConfigError, match="contains other files"):
            check(tmp_path, overwrite=overwrite)


NAMES = ("metrics.jsonl", "result.json", "training.html", "config.json", "model.safetensors")


def finished(folder: Path, content: str) -> None:
    """Make a finished run, with files of the user next to its own."""
    claim(folder)
    checkpoint(folder, 4)
    for name in NAMES:
        (folder / name).write_text(content, encoding="utf-8")
    (folder / "key").mkdir()
    (folder / "key" / "config.json").write_text(content, encoding="utf-8")
    (folder / "2_Dense").mkdir()
    (folder / "mine.txt").write_text("mine", encoding="utf-8")
    (folder / "report").mkdir()
    (folder / "report" / "page.html").write_text("page", encoding="utf-8")
    (folder / "latest").symlink_to("report")


def state(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(params=["exchange", "renames", "inside"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How a new run takes the place of the old one."""
    if request.param == "renames":
        monkeypatch.setattr(replacement.sys, "platform", "other")  # type: ignore[attr-defined]
    if request.param == "inside":
        monkeypatch.setattr(os.path, "ismount", lambda _: True)
    return str(request.param)


def test_an_earlier_run_stays_until_the_new_one_is_complete(tmp_path: Path, way: str) -> None:
    folder = tmp_path / "out"
    finished(folder, "old")
    with pytest.raises(ConfigError, match=r"contains an earlier run; .* --overwrite replaces it"):
        check(folder)
    before = state(folder)
    place = check(folder, overwrite=True)
    assert (place.parent == folder) is (way == "inside")
    claim(folder, place=place)
    checkpoint(place, 2)
    assert {name: text for name, text in state(folder).items() if ".new" not in name} == before
    # It can be resumed, and started again.
    assert check(folder, resume=True) == place
    claim(folder, place=place, resume=True)
    assert list(place.glob("checkpoints/checkpoint-2"))
    claim(folder, place=check(folder, overwrite=True))
    assert not list(place.glob("checkpoints/checkpoint-2"))

    for name in ("result.json", "config.json", "tokenizer.json"):
        (place / name).write_text("new", encoding="utf-8")
    put_in_place(place, folder)
    assert not place.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    found = state(folder)
    assert found.pop("mine.txt") == "mine"
    assert found.pop("report/page.html") == "page"
    assert found.pop("latest/page.html", "page") == "page"
    assert (folder / "latest").is_symlink()
    run_files = {name for name in found if not name.startswith("checkpoints")}
    assert run_files == {"result.json", "config.json", "tokenizer.json", "run.toml"}
    assert found["config.json"] == "new"
    assert not (folder / "2_Dense").exists()
    assert check(folder, resume=True) == folder


def test_a_crash_between_the_renames_is_made_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replacement.sys, "platform", "other")  # type: ignore[attr-defined]
    folder = tmp_path / "out"
    finished(folder, "old")
    place = check(folder, overwrite=True)
    claim(folder, place=place)
    (place / "config.json").write_text("new", encoding="utf-8")
    rename = Path.rename

    def crash(path: Path, target: Path) -> Path:
        if path == place:
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", crash)
        with pytest.raises(KeyboardInterrupt):
            put_in_place(place, folder)
    assert not folder.exists()
    check(folder, resume=True)
    assert (folder / "config.json").read_text(encoding="utf-8") == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_is_left_of_an_old_run_is_not_resumed(tmp_path: Path) -> None:
    """A crash right after the exchange leaves it at the place of the new one."""
    folder = tmp_path / "out"
    finished(folder, "new")
    finished(replacement.place_of_new_run(folder), "old")
    assert check(folder, resume=True) == folder
    claim(folder, place=check(folder, overwrite=True))
    assert "config.json" not in state(replacement.place_of_new_run(folder))


def test_resume_and_overwrite_contradict_each_other(tmp_path: Path) -> None:
    claim(tmp_path)
    with pytest.raises(ConfigError, match="give one of them"):
        check(tmp_path, resume=True, overwrite=True)


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    finished(tmp_path / "disk" / "out", "old")
    folder = tmp_path / "link"
    folder.symlink_to(tmp_path / "disk" / "out")
    place = check(folder, overwrite=True)
    claim(folder, place=place)
    (place / "config.json").write_text("new", encoding="utf-8")
    put_in_place(place, folder)
    assert folder.is_symlink()
    assert (tmp_path / "disk" / "out" / "config.json").read_text(encoding="utf-8") == "new"


def test_nothing_to_resume(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing to resume.*run without --resume"):
        check(tmp_path / "new", resume=True)
    claim(tmp_path)
    check(tmp_path, resume=True)  # it was started, and resumes with its first step


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


def test_a_run_from_before_a_setting_existed_is_resumed(tmp_path: Path) -> None:
    claim(tmp_path)
    checkpoint(tmp_path, 4)
    path = tmp_path / "run.toml"
    lines = path.read_text(encoding="utf-8").splitlines()
    old = [line for line in lines if not line.startswith("allow_unknown")]
    assert len(old) == len(lines) - 1
    path.write_text("\n".join(old) + "\n", encoding="utf-8")
    check(tmp_path, resume=True)
    changed = path.read_text(encoding="utf-8").replace("[data]", "[data]\nallow_unknown = true")
    path.write_text(changed, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"data\.allow_unknown was True, is False"):
        check(tmp_path, resume=True)


def test_other_text_is_not_resumed(tmp_path: Path) -> None:
    claim(tmp_path)
    checkpoint(tmp_path, 4)
    with pytest.raises(ConfigError, match="the training text has other content"):
        check(tmp_path, resume=True, data="e")


def test_other_held_out_rows_are_not_resumed(tmp_path: Path) -> None:
    claim(tmp_path)
    resumable(tmp_path, tmp_path)
    with pytest.raises(ConfigError, match="an earlier version held out"):
        resumable(tmp_path, tmp_path, held_out="i")
    # A run of a version that did not write them down.
    (tmp_path / "checkpoints" / "held-out-rows.sha256").unlink()
    resumable(tmp_path, tmp_path, held_out="before")
    with pytest.raises(ConfigError, match="an earlier version held out"):
        resumable(tmp_path, tmp_path)


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
