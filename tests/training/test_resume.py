"""A resumed run equals one that was never interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from simcse_kit.config import RunConfig
from simcse_kit.errors import ConfigError
from simcse_kit.methods.simcse import SimCSE
from simcse_kit.training.result import TrainResult
from tests.small_data import write_corpus
from tests.training.conftest import MakeConfig, train
from tests.training.test_run import rows_of, same_weights


class PowerCutError(Exception):
    """Stops a run between two checkpoints."""


def interrupt(config: RunConfig, monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    """Run until a share of the steps is done, and die there."""

    def die(_: SimCSE, progress: float) -> None:
        if progress >= share:
            raise PowerCutError

    with monkeypatch.context() as patched:
        patched.setattr(SimCSE, "after_step", die)
        with pytest.raises(PowerCutError):
            train(config)


def timeless(folder: Path) -> list[list[tuple[str, Any]]]:
    """Return the rows, with the order of their keys, without measured times."""
    return [
        [(key, value) for key, value in row.items() if key != "sentences_per_second"]
        for row in rows_of(folder)
    ]


def outcome(result: TrainResult) -> tuple[Any, ...]:
    return result.steps, result.start_score, result.best_score, result.best_step


# 7 batches of texts are an epoch: step 9 lies inside the second one. A line of metrics.jsonl every
# 5 steps and a checkpoint every 4: neither falls on the other.
@pytest.mark.parametrize("case", ["held out", "dev", "no score"])
def test_resumed_equals_uninterrupted(
    case: str, make_config: MakeConfig, dev_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation = {"held out": {}, "dev": {"dev": str(dev_file)}, "no score": {"held_out": 0}}[case]
    kind = "triplets" if case == "dev" else "texts"
    whole = train(make_config({"evaluation": evaluation}, name="whole", kind=kind))
    config = make_config({"evaluation": evaluation}, name="cut", kind=kind)
    interrupt(config, monkeypatch, share=10.5 / 12)
    assert not (Path(config.training.output) / "config.json").exists()
    cut = train(config, resume=True)

    # only what came after the checkpoint of step 8 was read again
    assert cut.sentences * 12 == whole.sentences * 4
    assert outcome(cut) == outcome(whole)
    assert timeless(cut.output) == timeless(whole.output)
    assert {row[0][0] for row in timeless(whole.output)} == {"step"}
    steps = [row[0][1] for row in timeless(whole.output)]
    assert [row[0][1] for row in timeless(cut.output)] == sorted(steps)
    for file in ("model.safetensors", "checkpoints/checkpoint-12/model.safetensors"):
        assert same_weights(cut.output / file, whole.output / file)

    # once more, in another place: nothing is left to do, and nothing changes
    moved = cut.output.rename(cut.output.with_name("moved"))
    again = train(make_config({"evaluation": evaluation}, name="moved", kind=kind), resume=True)
    assert again.output == moved
    assert (again.sentences, again.truncated) == (0, None)
    assert outcome(again) == outcome(whole)
    assert timeless(again.output) == timeless(whole.output)
    assert same_weights(again.output / "model.safetensors", whole.output / "model.safetensors")


def test_only_the_same_run_is_resumed(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    config = make_config()
    interrupt(config, monkeypatch, share=5 / 12)
    request.getfixturevalue("no_weights")
    folder = Path(config.training.output)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    changed = make_config({"training": {"seed": 7}, "method": {"temperature": 0.1}})
    with pytest.raises(ConfigError) as caught:
        train(changed, resume=True)
    message = str(caught.value)
    assert "method.temperature was 0.05, is 0.1; training.seed was 42, is 7" in message

    corpus = write_corpus(folder.parent)
    text = corpus.read_text(encoding="utf-8")
    corpus.write_text(text.replace("cat", "dog"), encoding="utf-8")
    with pytest.raises(ConfigError, match="the training text has other content"):
        train(config, resume=True)
    with pytest.raises(ConfigError, match="--resume continues it, --overwrite replaces it"):
        train(config)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
