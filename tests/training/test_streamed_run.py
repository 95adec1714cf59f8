"""Training from a stream of shards, interrupted and resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from simcse_kit.errors import ConfigError, DataError
from tests.small_data import sentences
from tests.training.conftest import MakeConfig, train


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    folder = tmp_path / "shards"
    folder.mkdir()
    lines = [f"{line} {n % 7}" for n, line in enumerate(sentences(240))]
    for shard in range(16):
        text = "".join(f"{line}\n" for line in lines[15 * shard : 15 * shard + 15])
        (folder / f"{shard}.txt").write_text(text, encoding="utf-8")
    return folder


def streamed(shards: Path) -> dict[str, Any]:
    return {
        "data": {"train": [f"file://{shards}"], "stream": "100kB"},
        "training": {"max_steps": 40, "log_every": 1},
        "evaluation": {"held_out": 0, "trace_every": 0},
    }


class StopError(Exception):
    pass


@pytest.mark.long
def test_a_run_that_is_interrupted_goes_on_in_the_same_order(
    make_config: MakeConfig, shards: Path
) -> None:
    whole = train(make_config(streamed(shards), name="whole"))
    config = make_config(streamed(shards), name="broken")

    def stop(row: dict[str, Any]) -> None:
        if row["step"] == 22:
            raise StopError

    with pytest.raises(StopError):
        train(config, callbacks=[stop])
    broken = train(config, resume=True)
    ours, theirs = (load_file(run.output / "model.safetensors") for run in (whole, broken))
    assert all(ours[name].equal(theirs[name]) for name in ours)
    (shards / "0.txt").write_text("another text\n" * 15, encoding="utf-8")
    with pytest.raises(ConfigError, match="text"):
        train(config, resume=True)


@pytest.mark.long
def test_a_shard_that_vanishes_ends_the_run_with_its_name(
    make_config: MakeConfig, shards: Path
) -> None:
    def remove(row: dict[str, Any]) -> None:
        if row["step"] == 1:
            for path in shards.glob("*.txt"):
                path.unlink()

    with pytest.raises(DataError, match=r"shards/\d.txt: no such file"):
        train(make_config(streamed(shards), name="gone"), callbacks=[remove])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data": {"stream": "much"}}, "data.stream is 'much'; it must be a size"),
        ({"evaluation": {"held_out": 20}}, "--set evaluation.held_out=0"),
        ({"data": {"sampling": "round_robin"}}, "leave data.weights and data.sampling out"),
        ({"trainer": {"dataloader_num_workers": 2}}, "leave trainer.dataloader_num_workers out"),
    ],
)
def test_settings_that_a_stream_does_not_allow_are_refused(
    make_config: MakeConfig, shards: Path, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        train(make_config(streamed(shards), change))
