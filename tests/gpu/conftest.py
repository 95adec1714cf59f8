"""Settings of the tests on a GPU, their division into processes, and a fixture for CUDA alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).resolve().parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the share of the tests that SIMCSE_TEST_SHARD names: ``0/4`` is the first of four."""
    number, _, count = os.environ.get("SIMCSE_TEST_SHARD", "0/1").partition("/")
    chosen = set(items[int(number) :: int(count)])
    dropped = [item for item in items if item not in chosen]
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if item in chosen]


@pytest.fixture
def cuda(device: torch.device) -> torch.device:
    """The device, in tests that need CUDA."""
    if device.type != "cuda":
        pytest.skip(f"needs CUDA, and SIMCSE_TEST_DEVICE is {device}")
    return device


@pytest.fixture(autouse=True)
def _full_precision() -> Iterator[None]:
    """Turn off TF32 in convolutions, which torch uses by default."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMCSE_CACHE", str(tmp_path / "cache"))
