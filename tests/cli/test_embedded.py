"""The embedded models: complete, verified on loading, and ``small`` the default."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest

import simcse_kit
from simcse_kit.config import RunConfig
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.folder import resolve
from simcse_kit.encoder.folder.model_files import model_files
from simcse_kit.errors import ModelError
from simcse_kit.utils.files import sha256_of
from tests.cli.conftest import Simcse

PACKAGE = Path(simcse_kit.__file__).parent
TEXTS = ["A dog runs.", "A puppy is running along the shore.", "Prices rose.", "why?"]


def test_encoding_uses_small_by_default_and_training_starts_from_mini() -> None:
    encoder = SentenceEncoder.load()
    assert encoder.source == resolve.resolve_model("small")
    assert (encoder.pooling, encoder.max_length, encoder.embedding_dim) == ("mean", 256, 256)
    puppy, prices = encoder.similarity(TEXTS[0], TEXTS[1:3])[0]
    assert puppy > 0.7
    assert prices < 0.2
    assert RunConfig().model.name == "mini"


@pytest.mark.parametrize("name", resolve.EMBEDDED)
def test_the_model_card_states_the_checksum_of_the_weights(name: str) -> None:
    folder = resolve.EMBEDDED[name]
    card = (folder / "README.md").read_text(encoding="utf-8")
    stated = re.findall(r"\b[0-9a-f]{64}\b", card)
    assert stated == [sha256_of(folder / "model.safetensors")]


@pytest.mark.parametrize(
    "file",
    ["mini/model.safetensors", "small/model.safetensors", "small/1_Pooling/config.json"],
)
def test_a_damaged_embedded_model_is_refused(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, simcse: Simcse
) -> None:
    name = file.partition("/")[0]
    shutil.copytree(resolve.EMBEDDED[name], tmp_path / name)
    monkeypatch.setitem(resolve.EMBEDDED, name, tmp_path / name)
    assert SentenceEncoder.load(name).embedding_dim == 256
    changed = bytearray((tmp_path / file).read_bytes())
    changed[-2] ^= 1
    (tmp_path / file).write_bytes(changed)
    with pytest.raises(ModelError, match=r"has changed since it was packaged.*reinstall"):
        SentenceEncoder.load(name)
    (tmp_path / file).unlink()
    refused = simcse("similarity", name, *TEXTS[:2])
    assert refused.code == 2
    assert refused.err.count("\n") == 1
    assert "reinstall simcse-kit" in refused.err


def test_the_wheel_contains_every_file_of_the_embedded_models() -> None:
    settings = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = settings["tool"]["setuptools"]["package-data"]["simcse_kit"]
    packaged = {path for pattern in patterns for path in PACKAGE.glob(pattern)}
    for folder in resolve.EMBEDDED.values():
        assert packaged.issuperset([*model_files(folder), folder / "README.md"])


def test_the_commands_know_small(simcse: Simcse) -> None:
    expected = SentenceEncoder.load().similarity(*TEXTS[:2])[0, 0]
    assert float(simcse("similarity", "small", *TEXTS[:2]).out) == pytest.approx(expected, abs=1e-4)
    info = json.loads(simcse("info", "small", "--json").out)
    assert (info["pooling"], info["max_length"], info["parameters"]) == ("mean", 256, 7_877_120)


def test_sentence_transformers_opens_small_with_equal_vectors(tmp_path: Path) -> None:
    st = pytest.importorskip("sentence_transformers")
    encoder = SentenceEncoder.load()
    encoder.save(tmp_path / "saved")
    for folder in (tmp_path / "saved", resolve.EMBEDDED["small"]):
        model = st.SentenceTransformer(str(folder), device="cpu")
        np.testing.assert_allclose(model.encode(TEXTS), encoder.encode(TEXTS), atol=1e-5)
