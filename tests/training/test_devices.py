"""Device and precision of a run, with GPUs that are pretended."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import PartialState

from simcse_kit.config import RunConfig, TrainingSection
from simcse_kit.config_files import load_config, presets
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ConfigError
from simcse_kit.methods.simcse import SimCSE, SimCSEConfig
from simcse_kit.training.arguments import RunArguments, training_arguments
from simcse_kit.training.compilation import compile_layers
from simcse_kit.training.devices import resolve_precision, run_device
from tests.training.conftest import MakeConfig, train

CPU, GPU, MPS = map(torch.device, ("cpu", "cuda:0", "mps"))


def settings(trainer: dict[str, Any] | None = None, **training: Any) -> RunConfig:
    return RunConfig(training=TrainingSection(**training), trainer=trainer or {})


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pretend that there are GPUs; returns a function of their number and capability."""

    def pretend(count: int, capability: int = 9) -> list[torch.device]:
        chosen: list[torch.device] = []
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "H100")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (capability, 0))
        monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
        return chosen

    return pretend


def refusal(config: RunConfig, device: torch.device) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve_precision(config, device)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("device", "capability", "given", "expected"),
    [
        (CPU, 9, "auto", "fp32"),
        (MPS, 9, "auto", "fp32"),
        (GPU, 9, "auto", "bf16"),
        (GPU, 7, "auto", "fp32"),
        (GPU, 9, "fp32", "fp32"),
        (CPU, 9, "bf16", "bf16"),
    ],
)
def test_auto_takes_bf16_where_the_gpu_has_it(
    device: torch.device,
    capability: int,
    given: str,
    expected: str,
    gpus: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    gpus(1, capability)
    with caplog.at_level(logging.INFO, "simcse_kit"):
        resolved = resolve_precision(settings(precision=given), device)
    assert resolved.training.precision == expected
    assert f"training on device {str(device)!r}" in caplog.text
    assert expected in caplog.text


def test_fp16_of_the_trainer_rules_out_bf16(gpus: Any) -> None:
    gpus(1)
    assert resolve_precision(settings({"fp16": True}), GPU).training.precision == "fp32"
    assert "trainer.fp16 = true needs an NVIDIA GPU" in refusal(settings({"fp16": True}), CPU)


def test_what_a_device_lacks_is_refused(gpus: Any) -> None:
    gpus(1, capability=7)
    assert "not supported by device 'cuda:0' (H100)" in refusal(settings(precision="bf16"), GPU)
    assert "not supported by device 'mps'" in refusal(settings(precision="bf16"), MPS)
    for device in (CPU, GPU, MPS):
        assert "training.tf32 = true needs an NVIDIA GPU" in refusal(settings(tf32=True), device)


def test_layers_are_compiled_for_gpus_only(gpus: Any, caplog: pytest.LogCaptureFixture) -> None:
    gpus(1)
    assert "training.compile = true is for GPUs" in refusal(settings(compile=True), CPU)
    assert resolve_precision(settings(compile=True), GPU).training.compile
    method = SimCSE(SentenceEncoder.load("mini", device="cpu"), SimCSEConfig())
    compile_layers(method)
    assert method.encoder.compiled
    assert "has no effect" not in caplog.text
    method.encoder.backbone.config.model_type = "another"
    compile_layers(method)
    assert "training.compile = true has no effect on the layers of another" in caplog.text


def test_one_of_several_gpus_must_be_named(gpus: Any) -> None:
    gpus(4)
    for device in ("auto", "cuda"):
        with pytest.raises(ConfigError, match=r"torchrun .*--device cuda:0"):
            run_device(settings(device=device))
    assert run_device(settings(device="cuda:2")) == torch.device("cuda:2")
    gpus(1)
    assert run_device(settings(device="cuda")) == GPU


def test_use_cpu_of_the_trainer_is_a_device(gpus: Any) -> None:
    gpus(1)
    assert run_device(settings({"use_cpu": True})) == CPU
    with pytest.raises(ConfigError, match=r"training\.device = 'cuda' and trainer\.use_cpu"):
        run_device(settings({"use_cpu": True}, device="cuda"))


@pytest.mark.usefixtures("no_weights")
def test_an_absent_gpu_stops_the_run_before_it_writes(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = make_config({"training": {"device": "cuda"}})
    with pytest.raises(ConfigError, match="cuda"):
        train(config)
    assert not Path(config.training.output).exists()


def test_the_trainer_uses_the_gpu_that_was_chosen(gpus: Any, tmp_path: Path) -> None:
    chosen = gpus(4)
    device = torch.device("cuda:2")
    arguments = training_arguments(settings(), tmp_path, 1, None, device=device)
    assert arguments.device == PartialState().device == device
    assert arguments.n_gpu == 1
    assert chosen[-1] == device
    assert arguments.dataloader_pin_memory
    assert arguments.accelerator_config.to_dict()["non_blocking"]
    assert not arguments.logging_nan_inf_filter
    json.loads(arguments.to_json_string())
    PartialState._reset_state()


def test_the_trainer_uses_the_cpu_although_there_is_a_gpu(gpus: Any, tmp_path: Path) -> None:
    gpus(4)
    arguments = training_arguments(settings(), tmp_path, 1, None, device=CPU)
    assert isinstance(arguments, RunArguments)
    assert (arguments.device, arguments.n_gpu) == (CPU, 0)
    assert not arguments.dataloader_pin_memory


def test_run_toml_has_the_precision_that_was_used(make_config: MakeConfig) -> None:
    config = make_config({"training": {"device": "cpu"}})
    assert config.training.precision == "auto"
    result = train(config)
    written = load_config(file=result.output / "run.toml")
    assert written.training.precision == "fp32"
    assert result.made_with["precision"] == "fp32"
    assert result.made_with["device"] == "cpu"
    other = config.model_copy(
        update={"training": config.training.model_copy(update={"precision": "bf16"})}
    )
    with pytest.raises(ConfigError, match=r"training\.precision was 'fp32', is 'bf16'"):
        train(other, resume=True)


_NOT_OF_PAPERS = {"adapt", "distill", "graded", "mini-sup", "mini-unsup"}


@pytest.mark.parametrize("name", sorted({*presets()} - _NOT_OF_PAPERS))
def test_presets_of_papers_have_a_precision_of_their_own(name: str) -> None:
    assert load_config(preset=name).training.precision == "fp32"
