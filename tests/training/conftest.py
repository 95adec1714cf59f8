"""A factory of small runs, with the corpus cache in a temporary folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from simcse_kit.config import RunConfig
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.methods.common.base import Method
from simcse_kit.training import run
from tests.small_data import run_config, write_corpus, write_pairs

MakeConfig = Callable[..., RunConfig]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMCSE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def _quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes most of a small run's time: collecting garbage, and drawing curves.

    The curves are drawn where a test is marked with the fixture ``with_curves``.
    """
    monkeypatch.setattr("accelerate.utils.memory.clear_device_cache", lambda *_, **__: None)
    if "with_curves" not in request.fixturenames:
        monkeypatch.setattr(
            "simcse_kit.training.result.write_training_report", lambda *_, **__: None
        )


@pytest.fixture
def with_curves() -> None:
    pass


@pytest.fixture
def make_config(tmp_path: Path, tiny_encoder_dir: Path) -> MakeConfig:
    """Configurations by output name, kind of data, and overriding tables."""

    def make(*overrides: dict[str, Any], name: str = "out", kind: str = "texts") -> RunConfig:
        corpus = write_corpus(tmp_path, kind)
        return run_config(tiny_encoder_dir, corpus, tmp_path / name, *overrides)

    return make


@pytest.fixture
def dev_file(tmp_path: Path) -> Path:
    return write_pairs(tmp_path / "dev.tsv")


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Method]:
    """The methods that were trained, as they were handed over for saving."""
    methods: list[Method] = []
    save = run.save_results

    def spy(config: Any, method: Method, *rest: Any) -> None:
        methods.append(method)
        save(config, method, *rest)

    monkeypatch.setattr(run, "save_results", spy)
    return methods


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where a model is opened."""

    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("a model was opened")

    monkeypatch.setattr(SentenceEncoder, "load", refuse)
