"""A resumed run equals an uninterrupted one for methods with prototypes, queues and noise."""

from __future__ import annotations

from typing import Any

import pytest

from simcse_kit.config import RunConfig
from simcse_kit.methods import METHODS
from tests.training.conftest import MakeConfig, train
from tests.training.test_resume import PowerCutError, timeless
from tests.training.test_run import same_weights

CASES: dict[str, dict[str, Any]] = {
    "swav": {"prototypes": 6, "hidden": 16, "frozen": 0.2, "queue_size": 16, "queue_start": 0.3},
    # 20 keys after 3 steps; clustered before the checkpoint of step 8 and after it
    "prototypical": {"queue_size": 24, "clusters": [2], "every": 5, "warmup": 0.1},
    "consert": {"views": ["shuffle|cutoff(0.3)", "noise(0.1)"], "dropout": 0.1},
}


def interrupt(config: RunConfig, monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    method = METHODS.resolve(config.method.name)
    after_step = method.after_step

    def die(self: Any, progress: float) -> None:
        if progress >= share:
            raise PowerCutError
        after_step(self, progress)

    with monkeypatch.context() as patched:
        patched.setattr(method, "after_step", die)
        with pytest.raises(PowerCutError):
            train(config)


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_resumed_equals_uninterrupted(
    name: str, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = {"method": {"name": name, **CASES[name]}}
    whole = train(make_config(method, name="whole"))
    config = make_config(method, name="cut")
    interrupt(config, monkeypatch, share=10.5 / 12)
    cut = train(config, resume=True)
    assert timeless(cut.output) == timeless(whole.output)
    rows = [dict(row) for row in timeless(whole.output)]
    clustered = ["prototype_loss" in row for row in rows if "loss" in row]
    assert any(clustered) == (name == "prototypical")
    for file in ("model.safetensors", "checkpoints/checkpoint-12/model.safetensors"):
        assert same_weights(cut.output / file, whole.output / file)
