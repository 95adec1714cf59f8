"""Limits of a device: its memory, and operators without a deterministic form."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from simcse_kit.config import RunConfig, TrainingSection
from simcse_kit.errors import ConfigError
from simcse_kit.methods.simcse import SimCSE, SimCSEConfig
from simcse_kit.training.device_limits import device_errors, peak_bytes
from tests.training.conftest import MakeConfig, train

GPU = torch.device("cuda:0")


@pytest.fixture(autouse=True)
def _gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU of 80 GB, on which another program uses 10 GB and this run has had 65 GB."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (2 * 10**9, 80 * 10**9))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 65 * 10**9)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 68 * 10**9)


def plan(folder: Path, device: str = "cuda:0", **training: Any) -> Any:
    return SimpleNamespace(
        config=RunConfig(training=TrainingSection(**training)),
        method=SimCSE,
        options=SimCSEConfig(),
        folder=folder,
        arguments=SimpleNamespace(device=torch.device(device), fp16=False),
    )


def failing(run: Any, message: str = "CUDA out of memory. Tried to allocate 2 GiB") -> None:
    with device_errors(run):
        memory = "out of memory" in message
        raise torch.OutOfMemoryError(message) if memory else RuntimeError(message)


def refusal(run: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        failing(run)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_message_has_the_memory_and_what_to_set(tmp_path: Path) -> None:
    message = refusal(plan(tmp_path, batch_size=512, precision="fp32"))
    assert "this run had 65.0 GB of 80.0 GB allocated" in message
    assert "other programs and the driver use 10.0 GB" in message
    assert "--memory-budget 63GB" in message
    assert "a --batch-size smaller than 512" in message
    assert "--precision bf16" in message
    assert "--resume" not in message


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        ({"memory_budget": "70GB"}, "a --memory-budget smaller than 70GB"),
        ({"chunk_tokens": 9000}, "training.chunk_tokens smaller than 9000"),
    ],
)
def test_a_setting_that_was_given_should_be_smaller(
    given: dict[str, Any], remedy: str, tmp_path: Path
) -> None:
    message = refusal(plan(tmp_path, **given, precision="bf16"))
    assert remedy in message
    assert "--precision" not in message


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes differ"):
        failing(plan(tmp_path), "shapes differ")
    with pytest.raises(torch.OutOfMemoryError):
        failing(plan(tmp_path, "cpu"))
    with pytest.raises(ConfigError, match=r"device 'mps' is out of memory; give --memory"):
        failing(plan(tmp_path, "mps"), "MPS backend out of memory")


@pytest.mark.long
def test_checkpoints_survive_and_can_be_continued(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def after_step(_: SimCSE, progress: float) -> None:
        if progress > 0.5:
            raise torch.OutOfMemoryError("CUDA out of memory")

    # The run takes place on the CPU, whose errors pass.
    monkeypatch.setattr("simcse_kit.training.device_limits._HOST", "none")
    monkeypatch.setattr(SimCSE, "after_step", after_step)
    config = make_config()
    with pytest.raises(ConfigError) as caught:
        train(config)
    message = str(caught.value)
    assert message.endswith("--resume --allow-changed continues from the checkpoint of step 4")
    size = int(re.findall(r"--batch-size smaller than (\d+)", message)[0])
    assert size == 8
    monkeypatch.undo()
    smaller = config.model_copy(
        update={"training": config.training.model_copy(update={"batch_size": size // 2})}
    )
    result = train(smaller, resume=True, allow_changed=True)
    assert result.steps == 12


def test_an_operator_without_a_deterministic_form_is_named(tmp_path: Path) -> None:
    error = "kthvalue CUDA does not have a deterministic implementation, but you set 'torch..."
    with pytest.raises(ConfigError, match=r"form of kthvalue CUDA; leave --deterministic out"):
        failing(plan(tmp_path, deterministic=True), error)
    with pytest.raises(RuntimeError, match="kthvalue"):
        failing(plan(tmp_path), error)


def test_the_peak_of_a_gpu_is_that_of_its_tensors() -> None:
    assert peak_bytes(GPU) == 65 * 10**9
    assert peak_bytes(torch.device("mps")) is None


def test_the_peak_is_in_the_result_and_in_the_summary(make_config: MakeConfig) -> None:
    result = train(make_config())
    assert result.peak_memory is not None
    assert result.peak_memory > 50e6
    assert result.to_json()["peak_memory"] == result.peak_memory
    assert any(line.startswith("peak memory ") for line in result.summary())
    card = (result.output / "README.md").read_text(encoding="utf-8")
    assert "| Peak memory |" in card
    assert "| Device | CPU, fp32 |" in card


def test_a_compiler_that_fails_is_named(tmp_path: Path) -> None:
    class CompilerError(RuntimeError):
        __module__ = "torch._inductor.exc"

    with (
        pytest.raises(
            ConfigError, match=r"training.compile = true .* \(no compiler\); leave it out"
        ),
        device_errors(plan(tmp_path, compile=True)),
    ):
        raise CompilerError("no\ncompiler")
    with pytest.raises(CompilerError), device_errors(plan(tmp_path)):
        raise CompilerError("of somebody else")
