"""Whole runs of the methods with a queue, without negatives, and with two encoders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from simcse_kit.config import RunConfig
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ConfigError
from simcse_kit.methods import METHODS
from simcse_kit.methods.common.base import Method
from simcse_kit.training.trainer import ContrastiveTrainer
from tests.training.conftest import MakeConfig, Trained, train
from tests.training.test_run import rows_of, same_weights


class PowerCutError(Exception):
    """Stops a run between two checkpoints."""


def of(name: str, **options: Any) -> dict[str, Any]:
    return {"method": {"name": name, **options}}


def interrupt(config: RunConfig, monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    method = METHODS.resolve(config.method.name)
    go_on = method.after_step

    def die(self: Method, progress: float) -> None:
        if progress >= share:
            raise PowerCutError
        go_on(self, progress)

    with monkeypatch.context() as patched:
        patched.setattr(method, "after_step", die)
        with pytest.raises(PowerCutError):
            train(config)


@pytest.mark.long
@pytest.mark.parametrize("method", [of("moco", queue_size=20), of("byol")], ids=["moco", "byol"])
def test_resumed_equals_uninterrupted(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, method: dict[str, Any]
) -> None:
    whole = train(make_config(method, name="whole"))
    config = make_config(method, name="cut")
    interrupt(config, monkeypatch, share=10.5 / 12)
    cut = train(config, resume=True)
    for file in ("model.safetensors", "checkpoints/checkpoint-12/model.safetensors"):
        assert same_weights(cut.output / file, whole.output / file)
    lines = [
        [{k: v for k, v in row.items() if k != "sentences_per_second"} for row in rows_of(output)]
        for output in (cut.output, whole.output)
    ]
    assert lines[0] == lines[1]
    losses = [row for row in lines[0] if "loss" in row]
    if method["method"]["name"] == "moco":
        assert losses[-1]["queue"] == 20
        assert losses[-1]["ln_batch"] == pytest.approx(torch.tensor(21.0).log().item())
    else:
        assert all("ln_batch" not in row for row in losses)
        traced = [row for row in lines[0] if "trace_spread" in row]
        assert traced
        assert all(0 < row["trace_projection_spread"] <= 1 for row in traced)


@pytest.mark.parametrize("method", [of("moco", queue_size=20), of("byol"), of("dual_encoder")])
def test_optimizer_holds_what_is_trained_and_no_copy(
    make_config: MakeConfig,
    trained: Trained,
    monkeypatch: pytest.MonkeyPatch,
    method: dict[str, Any],
) -> None:
    held: set[int] = set()
    create = ContrastiveTrainer.create_optimizer

    def spy(self: ContrastiveTrainer, *args: Any) -> Any:
        optimizer = create(self, *args)
        held.update(id(w) for group in optimizer.param_groups for w in group["params"])
        return optimizer

    monkeypatch.setattr(ContrastiveTrainer, "create_optimizer", spy)
    kind = "pairs" if method["method"]["name"] == "dual_encoder" else "texts"
    train(make_config(method, {"training": {"max_steps": 2}}, kind=kind), callbacks=[trained])
    for key, weight in trained.methods[0].named_parameters():
        assert (id(weight) in held) == (".copy." not in key), key


def test_methods_without_negatives_say_so_and_warn_of_their_loss(
    make_config: MakeConfig, dev_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="simcse_kit")
    result = train(make_config(of("simsiam"), {"training": {"max_steps": 2}}))
    assert "64 texts, no negatives" in caplog.text
    assert "for method 'simsiam' is lowest when all vectors are equal; give graded" in caplog.text
    assert "8 rows, no negatives" in (result.output / "README.md").read_text(encoding="utf-8")
    caplog.clear()
    dev = {"evaluation": {"dev": str(dev_file)}}
    train(make_config(of("simsiam"), dev, {"training": {"max_steps": 2}}, name="dev"))
    assert "lowest where" not in caplog.text


@pytest.mark.long
def test_collapse_in_training_is_warned_of_once(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """The paper's ablation, at a rate that gets it there within seconds."""
    config = make_config(
        of("simsiam", stop_gradient=False),
        {
            "training": {
                "max_steps": 40,
                "batch_size": 16,
                "learning_rate": 3e-2,
                "schedule": "constant",
            },
            "evaluation": {"trace_every": 10, "every": 1000},
        },
    )
    result = train(config)
    assert str(result.collapse).startswith("dimensional collapse")
    assert "set method.stop_gradient back to true, or use a method" in str(result.collapse)
    (warning,) = [text for text in caplog.messages if "dimensional" in text]
    assert str(result.collapse) in warning


@pytest.mark.parametrize(
    ("method", "size", "message"),
    [
        (of("moco", queue_size=7), 8, "method.queue_size is 7, less than a batch of 8"),
        (of("byol"), 1, "training.batch_size is 1, but method 'byol'"),
        (of("moco"), 1, "leaves no negatives for texts"),
        (of("dual_encoder"), 8, "'dual_encoder' cannot read 'texts' data"),
    ],
)
def test_bad_input_is_refused_before_weights_are_loaded(
    make_config: MakeConfig,
    request: pytest.FixtureRequest,
    method: dict[str, Any],
    size: int,
    message: str,
) -> None:
    request.getfixturevalue("no_weights")
    with pytest.raises(ConfigError, match=message) as caught:
        train(make_config(method, {"training": {"batch_size": size}}))
    assert "\n" not in str(caught.value)


@pytest.mark.long
def test_both_encoders_are_saved_and_an_earlier_one_does_not_stay(
    make_config: MakeConfig, trained: Trained
) -> None:
    result = train(make_config(of("dual_encoder"), kind="triplets"), callbacks=[trained])
    method: Any = trained.methods[0]
    texts = ["the cat sat", "a man is playing guitar"]
    vectors = []
    for folder, encoder in (
        (result.output, method.encoder),
        (result.output / "key", method.key_encoder),
    ):
        loaded = SentenceEncoder.load(folder)
        vectors.append(loaded.encode(texts))
        assert (vectors[-1] == encoder.encode(texts)).all()
    assert (vectors[0] != vectors[1]).any()
    assert "| Encoder key | in the subfolder key/" in (result.output / "README.md").read_text(
        encoding="utf-8"
    )
    assert json.loads((result.output / "result.json").read_text())["steps"] == 12

    train(
        make_config(of("simcse"), {"training": {"max_steps": 2}}, kind="triplets"),
        overwrite=True,
        callbacks=[trained],
    )
    assert SentenceEncoder.load(result.output)
    assert not (result.output / "key" / "config.json").exists()
