"""Checkpoints are written atomically, corrupt ones are detected, rotation keeps the best."""

from __future__ import annotations

import errno
import json
import logging
from pathlib import Path

import pytest

from simcse_kit.errors import ConfigError
from simcse_kit.training.state.checkpoints import (
    checkpoint_steps,
    flaw_of,
    newest_checkpoint,
    remove_corrupt_best,
    remove_unfinished,
    written_whole,
)
from tests.training.conftest import MakeConfig, train
from tests.training.test_resume import interrupt, timeless
from tests.training.test_run import same_weights


def write(folder: Path, step: int, best: int | None = None) -> Path:
    place = folder / f"checkpoint-{step}"
    with written_whole(place) as staging:
        (staging / "model.safetensors").write_bytes(b"weights of %d" % step)
        state = {"best_model_checkpoint": None if best is None else f"/old/checkpoint-{best}"}
        (staging / "trainer_state.json").write_text(json.dumps(state))
    return place


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_is_there_when_it_is_complete(tmp_path: Path) -> None:
    place = tmp_path / "checkpoint-4"
    with written_whole(place) as staging:
        (staging / "model.safetensors").write_bytes(b"half")
        assert checkpoint_steps(tmp_path) == {}
    assert flaw_of(place) is None
    assert names(tmp_path) == ["checkpoint-4"]


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda p: (p / "model.safetensors").write_bytes(b"wei"), "has 3 of 12 bytes"),
        (
            lambda p: (p / "model.safetensors").write_bytes(b"Weights of 8"),
            "has changed since it was written",
        ),
        (lambda p: (p / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda p: (p / "complete.json").unlink(), "written last"),
        (lambda p: (p / "complete.json").write_text("{"), "cannot be read"),
        (lambda p: (p / "complete.json").write_text("[]"), "cannot be read"),
    ],
)
def test_a_corrupt_checkpoint_is_skipped_and_logged(
    tmp_path: Path, harm: object, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    whole, torn = write(tmp_path, 4), write(tmp_path, 8)
    harm(torn)  # type: ignore[operator]
    with caplog.at_level(logging.WARNING):
        assert newest_checkpoint(tmp_path) == whole
    assert "checkpoint-8 is corrupt" in caplog.text
    assert said in caplog.text
    (tmp_path / ".writing-checkpoint-12").mkdir()
    remove_unfinished(tmp_path, whole)
    assert names(tmp_path) == ["checkpoint-4"]


def test_the_newest_has_the_most_steps(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    write(tmp_path, 9)
    wanted = write(tmp_path, 125)
    write(tmp_path, 700).rename(tmp_path / "checkpoint-old")
    assert newest_checkpoint(tmp_path) == wanted


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("write failed\nx")]
)
def test_a_full_disk_leaves_what_was_there(tmp_path: Path, error: Exception) -> None:
    kept = write(tmp_path, 4)

    def write_half() -> None:
        with written_whole(tmp_path / "checkpoint-8") as staging:
            (staging / "model.safetensors").write_bytes(b"half")
            raise error

    with pytest.raises(ConfigError, match=r"checkpoint-8 cannot be written: .* --resume continues"):
        write_half()
    assert names(tmp_path) == ["checkpoint-4"]
    assert flaw_of(kept) is None


def test_a_corrupt_checkpoint_is_replaced_by_one_of_the_same_step(tmp_path: Path) -> None:
    (write(tmp_path, 8) / "model.safetensors").write_bytes(b"torn")
    assert flaw_of(write(tmp_path, 8)) is None


def test_a_corrupt_best_is_removed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    best, newest = write(tmp_path, 4), write(tmp_path, 8, best=4)
    remove_corrupt_best(newest)
    assert flaw_of(best) is None
    (best / "model.safetensors").write_bytes(b"torn")
    with caplog.at_level(logging.WARNING):
        remove_corrupt_best(newest)
    assert names(tmp_path) == ["checkpoint-8"]
    assert "the best of the next ones is kept" in caplog.text


def test_a_run_resumes_from_the_checkpoint_before_a_corrupt_one(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = train(make_config(name="whole"))
    config = make_config(name="cut")
    interrupt(config, monkeypatch, share=10.5 / 12)
    checkpoints = Path(config.training.output) / "checkpoints"
    assert list(checkpoint_steps(checkpoints)) == [4, 8]
    weights = checkpoints / "checkpoint-8" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with caplog.at_level(logging.INFO, "simcse_kit"):
        cut = train(config, resume=True)
    assert "checkpoint-8 is corrupt" in caplog.text
    assert "resuming from step 4" in caplog.text
    assert timeless(cut.output) == timeless(whole.output)
    assert same_weights(cut.output / "model.safetensors", whole.output / "model.safetensors")
    assert all(flaw_of(path) is None for path in checkpoint_steps(checkpoints).values())


def test_a_run_killed_before_its_first_checkpoint_starts_again(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = make_config()
    interrupt(config, monkeypatch, share=2 / 12)
    with caplog.at_level(logging.WARNING, "simcse_kit"):
        assert train(config, resume=True).steps == 12
    assert "no complete checkpoint; the run starts with its first step" in caplog.text


def test_rotation_keeps_the_best_and_the_last(make_config: MakeConfig) -> None:
    result = train(make_config({"evaluation": {"every": 2}}))
    assert result.best_step is not None
    steps = list(checkpoint_steps(result.output / "checkpoints"))
    assert steps == sorted({result.best_step, 12} | ({10} if result.best_step == 12 else set()))


def test_changes_are_allowed_when_asked_for(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    interrupt(make_config(), monkeypatch, share=10.5 / 12)
    changed = make_config({"method": {"temperature": 0.1}})
    with pytest.raises(ConfigError, match=r"temperature was 0\.05, is 0\.1; .* --allow-changed"):
        train(changed, resume=True)
    with caplog.at_level(logging.WARNING, "simcse_kit"):
        assert train(changed, resume=True, allow_changed=True).sentences == 4 * 8
    assert "method.temperature was 0.05, is 0.1; it is resumed because of" in caplog.text
