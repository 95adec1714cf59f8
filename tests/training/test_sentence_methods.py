"""Whole runs of methods with their own state or encoder form: saved files, and resuming."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ConfigError
from simcse_kit.methods import METHODS
from simcse_kit.methods.common.base import Method
from tests.small_data import sentences
from tests.training.conftest import MakeConfig, Trained, train
from tests.training.test_resume import PowerCutError, outcome, timeless
from tests.training.test_run import same_weights

TEMPLATE = "the [X] is [MASK] ."
OPTIONS: dict[str, dict[str, Any]] = {
    "esimcse": {"queue_size": 20},
    "promptbert": {"template": TEMPLATE, "second_template": "a [X] is a [MASK] ."},
    "diffcse": {"rtd_weight": 0.1},
}


@pytest.mark.long
@pytest.mark.parametrize("name", OPTIONS)
def test_resumed_equals_uninterrupted_and_saved_equals_trained(
    name: str, make_config: MakeConfig, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without a score the last state is saved; with one, perhaps the start.
    method = {"method": {"name": name, **OPTIONS[name]}, "evaluation": {"held_out": 0}}
    whole = train(make_config(method, name="whole"), callbacks=[trained])
    encoder = trained.methods[0].encoder
    saved = SentenceEncoder.load(whole.output)
    assert np.array_equal(saved.encode(sentences(9)), encoder.encode(sentences(9)))

    config = make_config(method, name="cut")
    kind = METHODS.resolve(name)
    after_step = kind.after_step

    def die(self: Method, progress: float) -> None:
        after_step(self, progress)
        if progress >= 10.5 / 12:
            raise PowerCutError

    with monkeypatch.context() as patched:
        patched.setattr(kind, "after_step", die)
        with pytest.raises(PowerCutError):
            train(config, callbacks=[trained])
    cut = train(config, resume=True, callbacks=[trained])
    assert cut.sentences * 12 == whole.sentences * 4
    assert outcome(cut) == outcome(whole)
    assert timeless(cut.output) == timeless(whole.output)
    for file in ("model.safetensors", "checkpoints/checkpoint-12/model.safetensors"):
        assert same_weights(cut.output / file, whole.output / file)


def test_the_template_is_in_the_folder_and_on_its_card(make_config: MakeConfig) -> None:
    method = {"method": {"name": "promptbert", **OPTIONS["promptbert"]}}
    output = train(make_config(method, {"training": {"max_steps": 1}})).output
    saved = SentenceEncoder.load(output)
    assert saved.template is not None
    assert saved.template.text == TEMPLATE
    card = (output / "README.md").read_text(encoding="utf-8")
    assert TEMPLATE in card
    assert "2201.04337" in card
    assert "| Pooling | mask |" in card


def test_in_chunks_where_that_can_be(make_config: MakeConfig, request: Any) -> None:
    chunks = {"training": {"chunk_tokens": 60, "max_steps": 2}}
    for name in ("esimcse", "promptbert"):
        train(make_config({"method": {"name": name, **OPTIONS[name]}}, chunks, name=name))
    request.getfixturevalue("no_weights")
    with pytest.raises(ConfigError, match="chunk_tokens cannot be used with method 'diffcse'"):
        train(make_config({"method": {"name": "diffcse"}}, chunks))


def test_a_template_that_leaves_no_room_is_refused(make_config: MakeConfig, tmp_path: Path) -> None:
    method = {"method": {"name": "promptbert", **OPTIONS["promptbert"]}}
    with pytest.raises(ConfigError, match=r"max_length is 6 but the template .* use at least 7"):
        train(make_config(method, {"data": {"max_length": 6}}))
    assert not (tmp_path / "out" / "config.json").exists()
