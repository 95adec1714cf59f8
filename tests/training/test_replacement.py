"""An earlier run stays usable until the one that replaces it is complete."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ConfigError, ModelError, SimcseError
from simcse_kit.training import run
from simcse_kit.training.state.replacement import new_run_in
from simcse_kit.training.trainer import ContrastiveTrainer
from simcse_kit.training.verify_resume import differences
from tests.training.conftest import MakeConfig, train

SHORT: dict[str, Any] = {"training": {"max_steps": 4}, "evaluation": {"every": 2}}
OTHER: dict[str, Any] = {**SHORT, "training": {"max_steps": 4, "seed": 7}}


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def fail(*_: Any, **__: Any) -> Any:
    raise ModelError("it failed")


@pytest.mark.parametrize("part", ["build", "put_in_place"])
def test_a_run_that_fails_leaves_the_earlier_one(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    first = train(make_config(SHORT))
    before = files(first.output)
    with monkeypatch.context() as patch:
        patch.setattr(run, part, fail)
        with pytest.raises(SimcseError, match="it failed"):
            train(make_config(OTHER), overwrite=True)
    assert files(first.output) == before


@pytest.mark.long
def test_an_interrupted_replacement_is_resumed_and_equals_an_uninterrupted_one(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = train(make_config(OTHER, name="other")).output
    first = train(make_config(SHORT))
    (first.output / "notes.txt").write_text("mine", encoding="utf-8")
    before = files(first.output)
    old = SentenceEncoder.load(first.output).encode("a cat")
    trainer_type: Any = ContrastiveTrainer
    step = trainer_type.training_step

    def until_the_third(trainer: Any, *arguments: Any, **named: Any) -> Any:
        if trainer.state.global_step == 3:
            raise KeyboardInterrupt
        return step(trainer, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(trainer_type, "training_step", until_the_third)
        with pytest.raises(KeyboardInterrupt):
            train(make_config(OTHER), overwrite=True)
    assert files(first.output) == before
    place = new_run_in(first.output)
    assert place is not None
    with pytest.raises(ConfigError, match=r"training\.seed was 7, is 42"):
        train(make_config(SHORT), resume=True)
    second = train(make_config(OTHER), resume=True)
    assert second.output == first.output
    assert not place.exists()
    assert (SentenceEncoder.load(second.output).encode("a cat") != old).any()
    notes = second.output / "notes.txt"
    assert notes.read_text(encoding="utf-8") == "mine"
    notes.unlink()
    assert differences(expected, second.output)[1] == []
    # A finished one, that has been moved, is opened again by its own checkpoints.
    assert train(make_config(OTHER), resume=True).best_step == second.best_step
