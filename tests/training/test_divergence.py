"""A NaN or infinite loss or gradient stops the run before it reaches the weights."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from simcse_kit.errors import ConfigError, ModelError
from simcse_kit.methods.common.base import MethodOutput
from simcse_kit.methods.simcse import SimCSE
from simcse_kit.training.state import output_dir
from simcse_kit.training.state.checkpoints import checkpoint_steps, flaw_of
from tests.small_data import ROWS, sentences
from tests.training.conftest import MakeConfig, train


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_it_stops_with_the_batch_and_the_good_checkpoint(
    where: str, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config({"evaluation": {"held_out": 0}})
    loss, calls = SimCSE.loss, []

    def spoil(self: SimCSE, embeddings: Any, batch: Any) -> MethodOutput:
        output = loss(self, embeddings, batch)
        calls.append(1)
        if len(calls) < 6:
            return output
        if where == "loss":
            return MethodOutput(output.loss * math.nan)
        # The root of 0 is a number, its derivative is not.
        return MethodOutput(output.loss + torch.sqrt(embeddings.sum() * 0))

    monkeypatch.setattr(SimCSE, "loss", spoil)
    what = {"loss": "the loss", "gradient": "the norm of the gradient"}[where]
    with pytest.raises(ModelError, match=f"step 6: {what} is .*checkpoint of step 4 is good"):
        train(config)
    folder = Path(config.training.output)
    head, *rows = map(json.loads, (folder / "diverged-batch.jsonl").read_text().splitlines())
    assert head["step"] == 6
    assert len(rows) == 8
    assert {text for row in rows for text in row["texts"]} <= set(sentences(4 * ROWS))
    (step, kept), *more = checkpoint_steps(folder / "checkpoints").items()
    assert (step, more) == (4, [])
    assert flaw_of(kept) is None
    assert not (folder / "config.json").exists()


def test_a_full_disk_is_refused_before_anything_is_written(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config()
    monkeypatch.setattr(output_dir, "free_bytes", lambda _: 20_100_000)
    with pytest.raises(ConfigError, match=r"3 checkpoints of .* has 20 MB free; free some space"):
        train(config)
    assert not Path(config.training.output).exists()


def test_what_is_estimated_is_what_is_written(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    size = output_dir.checkpoint_bytes

    def spy(method: Any) -> int:
        told.append(size(method))
        return told[-1]

    monkeypatch.setattr(output_dir, "checkpoint_bytes", spy)
    result = train(make_config())
    newest = list(checkpoint_steps(result.output / "checkpoints").values())[-1]
    written = sum(path.stat().st_size for path in newest.iterdir())
    assert told[0] <= written <= told[0] + 200_000  # headers, log, random numbers
