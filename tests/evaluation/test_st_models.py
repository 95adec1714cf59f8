"""``st:`` models: how sentence-transformers opens good and damaged folders."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import MissingExtraError, ModelError, SimcseError
from simcse_kit.evaluation.models import open_encoder
from simcse_kit.evaluation.st_models import SentenceTransformersModel, _one_line_each
from tests.hostile_models import (
    CASES,
    MARK,
    cut,
    first,
    gone,
    module,
    modules,
    settings,
    text,
    weights,
    without,
)

pytest.importorskip("sentence_transformers")

Change = Callable[[Path], object]
TEXTS = ["the cat sat", "a dog ran on the mat"]


@pytest.fixture(scope="module")
def good(tiny_encoder_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole folder: transformer, pooling, a Dense stage and unit length."""
    from simcse_kit.encoder.dense import Dense

    folder = tmp_path_factory.mktemp("good") / "model"
    encoder = SentenceEncoder.load(tiny_encoder_dir, pooling="mean")
    torch.manual_seed(2)
    encoder.add_stage(Dense(32, 16))
    encoder.normalize = True
    encoder.save(folder)
    return folder


@pytest.fixture
def damaged(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "home" / "model"))


def test_the_same_vectors(good: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = open_encoder(f"st:{good}")
    assert isinstance(model, SentenceTransformersModel)
    vectors = model.encode(TEXTS)
    assert (vectors.dtype, vectors.shape) == (np.float32, (2, 16))
    np.testing.assert_allclose(vectors, SentenceEncoder.load(good).encode(TEXTS), atol=1e-5)
    assert capfd.readouterr().err == ""  # no report, no bar


def without_pooling(folder: Path) -> None:
    entries = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps(entries[:1] + entries[2:]))


def narrow_stage(folder: Path) -> None:
    settings("2_Dense/config.json", in_features=8)(folder)
    path = folder / "2_Dense" / "model.safetensors"
    weight = load_file(path)["linear.weight"]
    save_file({"linear.weight": weight[:, :8].contiguous(), "linear.bias": torch.zeros(16)}, path)


def fewer(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[first(tensors, "LayerNorm.weight")]


DAMAGE: dict[str, Change] = {
    "no modules left": gone("modules.json", "config.json"),
    "modules are no JSON": text("modules.json", "{"),
    "modules are a number": text("modules.json", "3"),
    "modules are numbers": text("modules.json", "[1, 2]"),
    "modules without a type": text("modules.json", '[{"idx": 0, "name": "0", "path": ""}]'),
    "an unknown module": modules(module("Nonsense")),
    "a module of another package": text(
        "modules.json", '[{"idx": 0, "name": "0", "path": "", "type": "os.system"}]'
    ),
    "a module outside": modules(module("Transformer", "../../elsewhere")),
    "no pooling": without_pooling,
    "pooling gone": gone("1_Pooling/config.json"),
    "pooling is no JSON": text("1_Pooling/config.json", "[1"),
    "pooling unknown": text("1_Pooling/config.json", '{"pooling_mode": "median"}'),
    "stage gone": gone("2_Dense/config.json"),
    "stage weights gone": gone("2_Dense/model.safetensors"),
    "stage weights cut": cut("2_Dense/model.safetensors", 0.5),
    "stage of another width": narrow_stage,
    "settings are a list": text("config_sentence_transformers.json", "[]"),
    "prompts are a number": settings("config_sentence_transformers.json", prompts=3),
    "length is a text": settings("sentence_bert_config.json", max_seq_length="long"),
    "weights gone": gone("model.safetensors"),
    "weights cut": cut("model.safetensors", 0.6),
    "weights empty": text("model.safetensors", ""),
    "a weight gone": weights(without),
    "a norm gone": weights(fewer),
    "weights that are NaN": weights(lambda t: t[first(t, "query.weight")].fill_(torch.nan)),
    "tokenizer gone": gone("tokenizer.json", "tokenizer_config.json"),
    "tokenizer is no JSON": text("tokenizer.json", "{"),
    "configuration is no JSON": text("config.json", "{"),
    "configuration of another kind": settings("config.json", model_type="vit"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_one_line_for_every_damage(
    damaged: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    DAMAGE[name](damaged)
    with pytest.raises(ModelError) as caught:
        open_encoder(f"st:{damaged}").encode(TEXTS)
    message = str(caught.value)
    assert str(damaged) in message
    assert "\n" not in message
    assert len(message) < 700
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(sys.platform != "linux", reason="pipes")
@pytest.mark.parametrize("name", CASES)
@pytest.mark.slow
def test_hostile_folders(tiny_encoder_dir: Path, tmp_path: Path, name: str) -> None:
    """They open as sentence-transformers sees fit, or one line says why not; no code runs."""
    folder = tmp_path / "home" / "model"
    shutil.copytree(tiny_encoder_dir, folder)
    CASES[name].change(folder)
    message = ""
    try:
        vectors = open_encoder(f"st:{folder}").encode(TEXTS)
    except SimcseError as error:
        message = str(error)
    assert "\n" not in message
    assert message or np.isfinite(vectors).all()
    assert not (tmp_path / "home" / MARK).exists()


def test_what_it_says_is_passed_on(caplog: pytest.LogCaptureFixture) -> None:
    theirs = logging.getLogger("sentence_transformers.base")
    with _one_line_each("sentence_transformers"):
        theirs.warning("Two\nlines, %s", "twice")
        theirs.warning("Two\nlines, twice")
        theirs.info("not this")
        assert caplog.messages == []
    assert caplog.messages == ["Two lines, twice"]
    theirs.warning("as before")
    assert caplog.messages[-1] == "as before"


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtraError, match=r"simcse-kit\[sentence-transformers\]"):
        open_encoder("st:anything")
