"""The choice of devices, on machines with and without GPUs."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from simcse_kit import SentenceEncoder
from simcse_kit.encoder import device as devices
from simcse_kit.encoder.dense import Dense
from simcse_kit.encoder.device import known_device, put_on
from simcse_kit.errors import ConfigError

Gpus = Callable[..., None]

OLD = (
    "CUDA initialization: The NVIDIA driver on your system is too old (found version 11040). "
    "Please update your GPU driver. (Triggered internally at CUDAFunctions.cpp:119.)"
)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Gpus:
    """Give the machine GPUs that torch can see."""

    def give(cuda: int = 0, *, mps: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H100 80GB HBM3")
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    monkeypatch.setattr(devices, "_run_kernel", lambda _: None)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    devices.announce.cache_clear()
    give()
    return give


def refusal(device: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        known_device(device)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(0, False, "cpu"), (0, True, "mps"), (2, True, "cuda:0")]
)
def test_auto_takes_cuda_then_mps_then_the_cpu(
    gpus: Gpus, cuda: int, mps: bool, expected: str
) -> None:
    gpus(cuda, mps=mps)
    for device in ("auto", None):
        assert known_device(device) == torch.device(expected)


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("cpu", "cpu"),
        ("cuda", "cuda:0"),
        ("cuda:1", "cuda:1"),
        (1, "cuda:1"),
        (torch.device("cuda"), "cuda:0"),
        (torch.device("cuda:1"), "cuda:1"),
        ("mps", "mps"),
    ],
)
def test_devices_have_names_numbers_and_objects(gpus: Gpus, device: Any, expected: str) -> None:
    gpus(2, mps=True)
    assert known_device(device) == torch.device(expected)


@pytest.mark.parametrize("device", ["auto", "cuda"])
@pytest.mark.parametrize(("visible", "expected"), [(4, "cuda:3"), (1, "cuda:0")])
def test_processes_of_a_launcher_use_one_gpu_each(
    gpus: Gpus, monkeypatch: pytest.MonkeyPatch, device: str, visible: int, expected: str
) -> None:
    gpus(visible)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert known_device(device) == torch.device(expected)
    assert known_device("cuda:0") == torch.device("cuda:0")


def test_the_current_gpu_of_the_program_is_kept(
    gpus: Gpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(2)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert known_device("cuda") == torch.device("cuda:1")


def test_absent_devices_are_refused_with_those_that_exist(
    gpus: Gpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    message = refusal("cuda")
    assert message.startswith("device 'cuda' cannot be used: torch ")
    assert "is built without CUDA" in message
    assert message.endswith("; use auto or cpu")
    assert "no Apple GPU (MPS) on this machine; use auto or cpu" in refusal("mps")
    gpus(mps=True)
    assert refusal("cuda:0").endswith("; use auto, cpu or mps")
    gpus(1)
    assert refusal("cuda:7") == (
        "device 'cuda:7' cannot be used: torch sees 1 GPU; use auto, cpu or cuda:0"
    )
    gpus(4)
    assert refusal(4) == (
        "device 4 cannot be used: torch sees 4 GPUs; use auto, cpu or cuda:0 to cuda:3"
    )
    assert refusal("mps").endswith("; use auto, cpu or cuda:0 to cuda:3")


def test_the_reason_why_cuda_cannot_be_used_is_told(
    gpus: Gpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus()
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def fail() -> None:
        raise RuntimeError("Found no NVIDIA driver on your system. Please check it.\nTrace ...")

    monkeypatch.setattr(torch.cuda, "init", fail)
    assert "Found no NVIDIA driver on your system. Please check it; use auto" in refusal("cuda")
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    assert "torch finds no GPU; use auto or cpu" in refusal("cuda")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES hides all GPUs; use auto or cpu" in refusal("cuda")


def test_a_driver_too_old_for_torch_is_one_line(
    gpus: Gpus, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gpus()

    def warn() -> bool:
        warnings.warn(OLD, UserWarning, stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", warn)
    message = refusal("cuda")
    assert message == (
        "device 'cuda' cannot be used: The NVIDIA driver on your system is too old (found version "
        "11040). Please update your GPU driver; use auto or cpu"
    )
    with caplog.at_level(logging.INFO, "simcse_kit"):
        assert known_device("auto") == torch.device("cpu")
    (line,) = caplog.messages
    assert "is too old" in line
    assert line.endswith("; the CPU is used")

    def fail() -> bool:
        raise RuntimeError("CUDA driver initialization failed\nmore")

    monkeypatch.setattr(torch.cuda, "is_available", fail)
    assert "CUDA driver initialization failed; use auto or cpu" in refusal("cuda")
    assert known_device("auto") == torch.device("cpu")


class Unmovable(torch.nn.Linear):
    """A module that no GPU takes."""

    def to(self, device: Any) -> Any:
        if torch.device(device).type == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB\nmore")
        return super().to(device)


def test_a_gpu_that_cannot_be_used_fails_only_if_it_was_asked_for(
    gpus: Gpus, caplog: pytest.LogCaptureFixture
) -> None:
    gpus(1)
    module, gpu = Unmovable(2, 2), torch.device("cuda:0")
    with pytest.raises(ConfigError, match=r"MiB; use another device, such as cpu$") as caught:
        put_on(module, gpu, "cuda")
    assert "\n" not in str(caught.value)
    with caplog.at_level(logging.INFO, "simcse_kit"):
        assert put_on(module, gpu, "auto") is module
    assert caplog.messages == [
        "device 'cuda:0' cannot be used: CUDA out of memory. Tried to allocate 2.00 MiB; "
        "the CPU is used instead"
    ]


class Movable(torch.nn.Linear):
    def to(self, _device: Any) -> Any:
        return self


def test_a_gpu_without_kernels_in_this_build_of_torch_is_not_used(
    gpus: Gpus, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gpus(1)

    def fail(_: torch.device) -> None:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\n")

    monkeypatch.setattr(devices, "_run_kernel", fail)
    with pytest.raises(ConfigError, match="'cuda:0' cannot be used: CUDA error: no kernel image"):
        put_on(Movable(2, 2), torch.device("cuda:0"), "cuda:0")
    put_on(Movable(2, 2), torch.device("cuda:0"), "auto")
    assert caplog.messages[-1].endswith("execution on the device; the CPU is used instead")


@pytest.mark.parametrize(
    ("count", "asked", "several"),
    [(1, "auto", False), (4, "auto", True), (4, "cuda", True), (4, "cuda:0", False)],
)
def test_one_line_says_which_gpu_is_used(
    gpus: Gpus, caplog: pytest.LogCaptureFixture, count: int, asked: str, several: bool
) -> None:
    gpus(count)
    with caplog.at_level(logging.DEBUG, "simcse_kit"):
        for _ in range(2):
            put_on(Movable(2, 2), known_device(asked), asked)
    (line,) = caplog.messages
    assert line.startswith("using cuda:0 (NVIDIA H100 80GB HBM3)")
    assert ("torchrun --nproc-per-node gpu -m simcse_kit encode" in line) == several
    assert (f"one of {count} GPUs" in line) == several


def test_the_cpu_is_not_announced(
    gpus: Gpus, tiny_encoder_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gpus()
    with caplog.at_level(logging.DEBUG, "simcse_kit"):
        for device in ("auto", "cpu", None, torch.device("cpu")):
            encoder = SentenceEncoder.load(tiny_encoder_dir, device=device)
            assert encoder.device == torch.device("cpu")
    assert not any("using c" in line for line in caplog.messages)


def test_the_cpu_is_loaded_without_a_look_at_gpus(
    monkeypatch: pytest.MonkeyPatch, tiny_encoder_dir: Path
) -> None:
    """Counting GPUs would keep child processes from using them after a fork."""

    def fail() -> bool:
        raise AssertionError("the GPUs are counted")

    monkeypatch.setattr(torch.cuda, "is_available", fail)
    SentenceEncoder.load(tiny_encoder_dir, device="cpu")


def test_what_is_added_joins_the_device_of_the_encoder() -> None:
    encoder = SentenceEncoder.load("mini").to("meta")
    encoder.add_stage(Dense(256, 16))
    encoder.add_stage(Dense(16, 8))
    model = encoder.masked_lm()
    for part in (encoder, model):
        assert {weight.device.type for weight in part.parameters()} == {"meta"}


def test_a_copy_of_an_encoder_encodes_like_it(tiny_encoder_dir: Path) -> None:
    """Export makes one of an encoder on a GPU."""
    encoder = SentenceEncoder.load(tiny_encoder_dir)
    twin = copy.deepcopy(encoder).to("cpu")
    np.testing.assert_array_equal(twin.encode("the cat sat"), encoder.encode("the cat sat"))
