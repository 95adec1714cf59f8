"""Fixtures for all tests: a tiny encoder made in memory, and the optional real data."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import torch

# Set before anything imports torch or a Hugging Face library: no test may reach the network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest test first, so that no worker is left with it when the others are through."""
    items.sort(key=lambda item: "docs/test_pages" not in item.nodeid)


@pytest.fixture(scope="session")
def device() -> torch.device:
    """Return CUDA, or what SIMCSE_TEST_DEVICE names; without a CUDA device the test is skipped."""
    import torch

    name = os.environ.get("SIMCSE_TEST_DEVICE", "cuda")
    if name.startswith("cuda") and not torch.cuda.is_available():
        pytest.skip(f"torch {torch.__version__} finds no CUDA device")
    return torch.device(name)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of real data next to the checkout; not part of the repository."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real data is absent: {folder}")
    return folder


@pytest.fixture(scope="session")
def tiny_encoder_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See :func:`tests.small_data.write_tiny_encoder`."""
    from tests.small_data import write_tiny_encoder

    return write_tiny_encoder(tmp_path_factory.mktemp("tiny-bert"))


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Return Chromium without a window; without Playwright or a browser the test is skipped."""
    sync_api = pytest.importorskip("playwright.sync_api")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    quiet = ("background-networking", "component-update", "sync", "quic", "gpu")
    with sync_api.sync_playwright() as player:
        opened = player.chromium.launch(
            executable_path=browser,
            args=["--no-sandbox", "--no-first-run", *(f"--disable-{name}" for name in quiet)],
        )
        yield opened
        opened.close()


@pytest.fixture
def store() -> Iterator[Any]:
    """Yield an object store in memory, empty before and after the test."""
    import fsspec

    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()
