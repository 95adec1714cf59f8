"""An objective in a whole run: its record, its logs, and what is refused before weights load."""

from __future__ import annotations

import math
import tomllib
from typing import Any

import pytest

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ConfigError
from tests.training.conftest import MakeConfig, train
from tests.training.test_resume import interrupt
from tests.training.test_run import same_weights, weights


def method(**options: Any) -> dict[str, Any]:
    return {"method": {"name": "simcse", **options}}


def test_a_run_keeps_its_objective_and_logs_it(make_config: MakeConfig) -> None:
    options: dict[str, Any] = {
        "objective": "info_nce(symmetric=True)",
        "learn_temperature": True,
        "matryoshka": [8, 32],
        "head": "none",
    }
    config = make_config(method(**options), {"training": {"max_steps": 4}}, kind="pairs")
    result = train(config)
    rows = [row for row in result.history if "loss" in row]
    assert {"temperature", "loss_8", "loss_32", "ln_batch"} <= set(rows[-1])
    record = tomllib.loads((result.output / "run.toml").read_text(encoding="utf-8"))["method"]
    assert {key: record[key] for key in options} == options


@pytest.mark.long
def test_a_resumed_run_has_learned_the_same_temperature(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = method(learn_temperature=True, objective="decoupled")
    whole = train(make_config(options, name="whole"))
    config = make_config(options, name="cut")
    interrupt(config, monkeypatch, share=10.5 / 12)
    cut = train(config, resume=True)
    file = "checkpoints/checkpoint-12/model.safetensors"
    assert same_weights(cut.output / file, whole.output / file)
    learned = weights(whole.output / file)["objective.log_scale"]
    assert learned != pytest.approx(-math.log(0.05), abs=1e-6)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"objective": "triplet(mining='given')"}, "texts", "needs hard negatives and texts have"),
        ({"objective": "triplet(mining='given')"}, "pairs", "needs hard negatives and pairs have"),
        ({"objective": "nt_xent"}, "triplets", "does not use the hard negatives of triplets"),
        ({"objective": "tripplet"}, "texts", "did you mean 'triplet'"),
    ],
)
def test_a_run_that_cannot_be_is_refused_before_weights_load(
    make_config: MakeConfig,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    kind: str,
    message: str,
) -> None:
    monkeypatch.setattr(SentenceEncoder, "load", lambda *_, **__: pytest.fail("weights loaded"))
    with pytest.raises(ConfigError, match=message):
        train(make_config(method(**options), kind=kind))
