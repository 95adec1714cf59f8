"""`simcse verify-resume` finds every difference, and none if the runs are equal."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from simcse_kit.errors import ConfigError, SimcseError
from simcse_kit.training.verify_resume import differences, verify_resume
from tests.small_data import write_corpus
from tests.training.conftest import MakeConfig, train


def swap_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def drop_line(path: Path) -> None:
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def other_score(path: Path) -> None:
    state = json.loads(path.read_text())
    path.write_text(json.dumps(state | {"best_metric": 7.0}))


LAST = "checkpoints/checkpoint-12"


@pytest.mark.parametrize(
    ("file", "harm"),
    [
        ("model.safetensors", swap_byte),
        (f"{LAST}/model.safetensors", swap_byte),
        (f"{LAST}/optimizer.pt", swap_byte),
        (f"{LAST}/rng_state.pth", Path.unlink),
        (f"{LAST}/trainer_state.json", other_score),
        ("metrics.jsonl", drop_line),
    ],
)
def test_what_differs_is_named(
    file: str, harm: Callable[[Path], None], plain_run: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(plain_run, other)
    assert differences(plain_run, other)[1] == []
    harm(other / file)
    _, different = differences(plain_run, other)
    assert [text.split()[0] for text in different] == [file]


def test_times_and_places_do_not_count(make_config: MakeConfig, plain_run: Path) -> None:
    compared, different = differences(plain_run, train(make_config(name="other")).output)
    assert different == []
    assert compared > 10


def test_too_few_steps_or_kills_are_refused(make_config: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 3 steps and 1 kill, got 2 steps"):
        verify_resume(make_config(), tmp_path, steps=2)
    with pytest.raises(SimcseError, match="batch_size is 1000 but the data has only 64 rows"):
        verify_resume(make_config({"training": {"batch_size": 1000}}), tmp_path)


@pytest.mark.slow
def test_the_command_proves_it(tmp_path: Path, tiny_encoder_dir: Path) -> None:
    options = ["--set", "training.batch_size=8", "--set", "model.pooling=mean", "--steps", "9"]
    corpus = str(write_corpus(tmp_path))
    command = ["verify-resume", corpus, "--model", str(tiny_encoder_dir), *options, "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "simcse_kit", *command], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert found["different"] == []
    assert found["killed_at"]


def test_the_result_says_what_it_was_made_with(make_config: MakeConfig) -> None:
    one = train(make_config(name="a"))
    told = json.loads((one.output / "result.json").read_text())["made_with"]
    assert {"torch", "cpu", "threads", "training_text", "start_model"} <= set(told)
    assert (told["seed"], told["processes"], told["deterministic"]) == ("42", "1", "false")


def test_deterministic_operators_change_nothing_on_a_cpu(make_config: MakeConfig) -> None:
    plain = train(make_config(name="a")).output
    try:
        strict = train(make_config({"training": {"deterministic": True}}, name="b")).output
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    assert differences(plain, strict)[1] == []
