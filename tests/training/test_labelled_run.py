"""Labelled rows and documents, from the file to the encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from simcse_kit.config import RunConfig
from simcse_kit.config_files import load_config
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ConfigError, DataError
from tests.training.conftest import train


def config_of(encoder: Path, file: Path, **tables: dict[str, Any]) -> RunConfig:
    table: dict[str, Any] = {
        "model": {"name": str(encoder)},
        "data": {"train": [str(file)], **tables.pop("data", {})},
        "training": {"output": str(file.parent / "out"), "max_steps": 2, "batch_size": 4},
        "evaluation": {"held_out": 0},
    }
    return load_config(overrides=[table, tables])


@pytest.fixture
def labelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SIMCSE_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "x.csv"
    rows = [f"the cat {word},a dog {word},{number % 2}" for number, word in enumerate("abcdefgh")]
    file.write_text("\n".join(["sent0,sent1,label", *rows]) + "\n")
    return file


def test_a_margin_is_learned_from_labels(tiny_encoder_dir: Path, labelled: Path) -> None:
    method = {"name": "margin_contrastive"}
    result = train(config_of(tiny_encoder_dir, labelled, method=method, data={"label": "label"}))
    assert result.steps == 2
    assert SentenceEncoder.load(result.output).encode(["the cat"]).shape == (1, 32)
    # Earlier versions wrote the name with a hyphen.
    run_file = result.output / "run.toml"
    run = run_file.read_text(encoding="utf-8")
    run_file.write_text(run.replace("margin_contrastive", "margin-contrastive"), encoding="utf-8")
    old = {"name": "margin-contrastive"}
    again = config_of(tiny_encoder_dir, labelled, method=old, data={"label": "label"})
    assert train(again, resume=True).steps == 2


@pytest.mark.usefixtures("no_weights")
def test_wrong_labels_and_kinds_are_refused_before_the_model_is_opened(
    labelled: Path, tiny_encoder_dir: Path
) -> None:
    method = {"name": "margin_contrastive"}
    labelled.write_text(labelled.read_text().replace(",1\n", ",3\n"))
    with pytest.raises(DataError, match="label 3 is not 0 or 1"):
        train(config_of(tiny_encoder_dir, labelled, method=method, data={"label": "label"}))
    with pytest.raises(ConfigError, match=r"cannot read 'pairs' data.*data\.label names"):
        train(
            config_of(
                tiny_encoder_dir, labelled, method=method, data={"columns": ["sent0", "sent1"]}
            )
        )


def test_documents_teach_what_comes_next(
    tiny_encoder_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMCSE_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "x.txt"
    file.write_text("\n\n".join(f"the cat {w}\na dog {w}\na tree {w}" for w in "abcdef") + "\n")
    method = {"name": "cpc", "distances": 2}
    result = train(config_of(tiny_encoder_dir, file, method=method, data={"documents": 2}))
    assert result.steps == 2
    file.write_text("the cat\na dog\na tree\na car\n")
    with pytest.raises(ConfigError, match=r"cannot read 'texts' data.*data\.documents"):
        train(config_of(tiny_encoder_dir, file, method=method), overwrite=True)
