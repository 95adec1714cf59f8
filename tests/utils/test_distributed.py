"""The GPU and the backend of each process that a launcher starts."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import pytest
import torch
from torch import distributed

from simcse_kit.errors import SimcseError
from simcse_kit.utils.distributed import Processes


def joined(
    monkeypatch: pytest.MonkeyPatch, gpus: int, local: int, size: int, **given: str
) -> tuple[str, str | None]:
    """Return the backend and the visible GPUs of a process that then finds no others."""
    backends: list[str] = []

    def init(backend: str, **_: Any) -> None:
        backends.append(backend)
        raise RuntimeError("nobody is there")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(distributed, "init_process_group", init)
    ranks = {"RANK": local, "LOCAL_RANK": local, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    # Set first, so that it is restored although the process changes it.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    if "CUDA_VISIBLE_DEVICES" not in given:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    for name, value in {**ranks, **given}.items():
        monkeypatch.setenv(name, str(value))
    with (
        pytest.raises(SimcseError, match="nobody is there"),
        Processes.joined(patience=timedelta(seconds=1)),
    ):
        pass
    return backends[0], os.environ.get("CUDA_VISIBLE_DEVICES")


@pytest.mark.parametrize(
    ("gpus", "local", "size", "expected"),
    [
        (4, 3, 4, ("cpu:gloo,cuda:nccl", "3")),
        (4, 1, 2, ("cpu:gloo,cuda:nccl", "1")),
        # Two processes on one GPU, which NCCL refuses.
        (1, 1, 2, ("gloo", "0")),
        (2, 2, 3, ("gloo", "0")),
        (0, 1, 2, ("gloo", None)),
    ],
)
def test_each_process_sees_one_gpu(
    gpus: int,
    local: int,
    size: int,
    expected: tuple[str, str | None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert joined(monkeypatch, gpus, local, size) == expected


def test_the_gpus_that_were_made_visible_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    found = joined(monkeypatch, 2, 1, 2, CUDA_VISIBLE_DEVICES="5,7")
    assert found == ("cpu:gloo,cuda:nccl", "7")


def test_hidden_gpus_stay_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    assert joined(monkeypatch, 0, 1, 2, CUDA_VISIBLE_DEVICES="") == ("gloo", "")
