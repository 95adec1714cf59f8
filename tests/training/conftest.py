"""A factory of small runs, with the corpus cache in a temporary folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback

import simcse_kit
from simcse_kit.config import RunConfig
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.methods.common.base import Method
from simcse_kit.training.result import TrainResult
from tests.small_data import run_config, write_corpus, write_pairs

MakeConfig = Callable[..., RunConfig]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMCSE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the garbage collection between the phases, which takes most of a small run."""
    monkeypatch.setattr("accelerate.utils.memory.clear_device_cache", lambda *_, **__: None)


def train(data: Any = None, *, report: bool = False, **options: Any) -> TrainResult:
    """Train as users do, but by default without drawing curves, which takes longer than the run."""
    return simcse_kit.train(data, report=report, **options)


class Trained(TrainerCallback):
    """The methods of the runs that had this callback."""

    def __init__(self) -> None:
        self.methods: list[Method] = []

    def on_train_begin(self, *_: Any, model: Any = None, **__: Any) -> None:
        self.methods.append(model)


@pytest.fixture(scope="session")
def plain_run(tmp_path_factory: pytest.TempPathFactory, tiny_encoder_dir: Path) -> Path:
    """The folder of a finished run with the settings of ``make_config()``; not to be changed."""
    folder = tmp_path_factory.mktemp("plain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIMCSE_CACHE", str(folder / "cache"))
        config = run_config(tiny_encoder_dir, write_corpus(folder, "texts"), folder / "out")
        return train(config).output


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
def trained() -> Trained:
    return Trained()


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where a model is opened."""

    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("a model was opened")

    monkeypatch.setattr(SentenceEncoder, "load", refuse)
