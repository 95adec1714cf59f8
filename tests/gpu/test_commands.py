"""Commands and whole runs on the device: resume, precision, memory, several processes."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import TrainerCallback
from typer.testing import CliRunner, Result

import simcse_kit
from simcse_kit.cli.main import app
from simcse_kit.config import RunConfig
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.methods.simcse import SimCSE
from tests.small_data import run_config, sentences, write_corpus, write_pairs
from tests.training.test_run import rows_of, same_weights

pytestmark = pytest.mark.gpu

Config = Callable[..., RunConfig]
# Without the measurements that change from run to run.
MEASURED = {"sentences_per_second", "peak_memory"}


@pytest.fixture
def config(tmp_path: Path, tiny_encoder_dir: Path) -> Config:
    """Configuration of 12 steps by the name of the output."""

    def make(name: str, **settings: Any) -> RunConfig:
        corpus = write_corpus(tmp_path)
        overrides = {"training": settings}
        return run_config(tiny_encoder_dir, corpus, tmp_path / name, overrides)

    return make


def simcse(*arguments: object, device: torch.device) -> Result:
    given = [*map(str, arguments), "--device", str(device)]
    done = CliRunner().invoke(app, given, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


class Watch(TrainerCallback):
    """Record where the weights are, and the precision of autocast, in every pass."""

    def __init__(self) -> None:
        self.devices: set[str] = set()
        self.autocast: set[torch.dtype | None] = set()

    def on_train_begin(self, *_: Any, model: Any = None, **__: Any) -> None:
        def record(module: Any, *_: Any) -> None:
            kind = next(module.parameters()).device.type
            self.devices.add(kind)
            # After autocast, the first layer has its precision; here it is asked directly.
            on = torch.is_autocast_enabled(kind)
            self.autocast.add(torch.get_autocast_dtype(kind) if on else None)

        model.encoder.register_forward_pre_hook(record)


# ------------------------------------------------------------------ precision and device


def test_training_runs_on_the_device_with_the_precision_of_auto(
    device: torch.device, config: Config
) -> None:
    watch = Watch()
    given = config("auto", precision="auto", device=str(device))
    result = simcse_kit.train(given, callbacks=[watch], report=False)
    assert watch.devices == {device.type}
    half = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    assert watch.autocast == {torch.bfloat16 if half else None}
    assert all(np.isfinite(row["loss"]) for row in result.history if "loss" in row)


def test_an_encoder_is_loaded_to_cuda_by_default(
    cuda: torch.device, tiny_encoder_dir: Path
) -> None:
    assert SentenceEncoder.load(tiny_encoder_dir).device.type == cuda.type


# ------------------------------------------------------------------ commands


def test_the_commands_train_encode_and_score(
    device: torch.device, tmp_path: Path, tiny_encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    corpus, dev = write_corpus(tmp_path), write_pairs(tmp_path / "dev.tsv")
    arguments = ["--dev", dev, "--max-steps", 4, "--batch-size", 8, "--set", "evaluation.every=2"]
    simcse(
        "train", corpus, "--model", tiny_encoder_dir, "--output", "out", *arguments, device=device
    )
    result = json.loads(Path("out/result.json").read_text(encoding="utf-8"))
    assert result["steps"] == 4
    if device.type == "cuda":
        assert result["peak_memory"] > 0
    simcse("encode", "out", corpus, "--output", "vectors.npy", device=device)
    vectors = np.load("vectors.npy")
    encoder = SentenceEncoder.load("out", device="cpu")
    texts = corpus.read_text(encoding="utf-8").splitlines()
    np.testing.assert_allclose(vectors, encoder.encode(texts), rtol=0, atol=1e-5)
    scores = []
    for where in (device, torch.device("cpu")):
        file = tmp_path / f"{where.type}.json"
        simcse("eval", "out", "--tasks", dev, "--json", file, device=where)
        scores.append(json.loads(file.read_text(encoding="utf-8")))

    def numbers(value: Any) -> list[float]:
        if isinstance(value, dict):
            value = [item for key, item in sorted(value.items()) if "second" not in key]
        if isinstance(value, list):
            return [number for item in value for number in numbers(item)]
        return [value] if isinstance(value, float) else []

    assert numbers(scores[0]) == pytest.approx(numbers(scores[1]), rel=1e-2, abs=1e-3)


# ------------------------------------------------------------------ the same bytes


def timeless(folder: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in MEASURED} for row in rows_of(folder)]


def assert_same_run(one: Path, other: Path) -> None:
    assert timeless(one) == timeless(other)
    for file in ("model.safetensors", "checkpoints/checkpoint-12/model.safetensors"):
        assert same_weights(one / file, other / file)


class PowerCutError(Exception):
    """Stops a run between two checkpoints."""


@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_deterministic_runs_have_the_same_bytes_resumed_or_not(
    device: torch.device, config: Config, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    settings = {"deterministic": True, "precision": precision, "device": str(device)}
    whole, again, cut = (config(name, **settings) for name in ("whole", "again", "cut"))
    for each in (whole, again):
        simcse_kit.train(each, report=False)

    def die(_: SimCSE, progress: float) -> None:
        if progress >= 10.5 / 12:
            raise PowerCutError

    with monkeypatch.context() as patched:
        patched.setattr(SimCSE, "after_step", die)
        with pytest.raises(PowerCutError):
            simcse_kit.train(cut, report=False)
    simcse_kit.train(cut, resume=True, report=False)
    folders = [Path(each.training.output) for each in (whole, again, cut)]
    assert_same_run(folders[0], folders[1])
    assert_same_run(folders[0], folders[2])


# ------------------------------------------------------------------ memory


def test_encoding_continues_with_smaller_batches_when_memory_is_short(
    cuda: torch.device, tiny_encoder_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = SentenceEncoder.load(tiny_encoder_dir, device=str(cuda))
    texts = sentences(20_000, seed=8)
    expected = encoder.encode(texts)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(cuda).total_memory
    allowed = torch.cuda.memory_allocated() + 24 * 2**20
    torch.cuda.set_per_process_memory_fraction(allowed / total)
    try:
        with caplog.at_level(logging.INFO, logger="simcse_kit"):
            vectors = encoder.encode(texts, token_budget=200_000)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-5)
    assert "memory" in caplog.text
    assert caplog.text.count("memory") < 12


def test_training_without_memory_says_what_to_set(cuda: torch.device, config: Config) -> None:
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(cuda).total_memory
    torch.cuda.set_per_process_memory_fraction(2**21 / total)
    try:
        with pytest.raises(simcse_kit.SimcseError, match="memory") as caught:
            simcse_kit.train(config("short", device=str(cuda)), report=False)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "\n" not in str(caught.value)
    assert not Path(config("short").training.output, "model.safetensors").exists()


# ------------------------------------------------------------------ several processes


def test_two_processes_on_one_device_train_like_one(
    device: torch.device, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    settings = {"chunk_tokens": 40, "precision": "fp32", "device": str(device)}
    alone = config("alone", **settings)
    simcse_kit.train(alone, report=False)
    shared = config("shared", **settings)
    path = tmp_path / "shared.toml"
    path.write_text(shared.to_toml(), encoding="utf-8")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [
        *launcher,
        "--nproc-per-node",
        "2",
        "-m",
        "simcse_kit",
        "train",
        "--config",
        str(path),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    one, two = (Path(each.training.output) for each in (alone, shared))
    for first, second in zip(timeless(one), timeless(two), strict=True):
        assert second == pytest.approx(first, abs=5e-3)
