"""A shallower encoder from some of the layers of a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.fewer_layers import keep_layers
from simcse_kit.errors import ConfigError, ModelError
from tests.encoder.family_models import auto_class, build

TEXTS = ["the cat sat on the mat", "a man is playing guitar", "old music"]


@pytest.fixture
def encoder() -> SentenceEncoder:
    return SentenceEncoder.load("mini")


def test_the_kept_layers_are_those_of_the_model(encoder: SentenceEncoder) -> None:
    before = list(encoder.backbone.encoder.layer)
    keep_layers(encoder, [0, 2])
    assert [id(layer) for layer in encoder.backbone.encoder.layer] == [
        id(before[0]),
        id(before[2]),
    ]
    states = encoder.backbone.embeddings(torch.tensor([[2, 40, 41, 3]]))
    for layer in (before[0], before[2]):
        states = layer(states)
    found = encoder(torch.tensor([[2, 40, 41, 3]]), torch.ones(1, 4, dtype=torch.int64))
    torch.testing.assert_close(found, states.mean(dim=1), rtol=0, atol=1e-5)


def test_the_saved_folder_opens_everywhere(encoder: SentenceEncoder, tmp_path: Path) -> None:
    encoder.encode(TEXTS)  # prepares the layers
    keep_layers(encoder, [1, 3])
    expected = encoder.encode(TEXTS)
    encoder.save(tmp_path / "small")
    assert json.loads((tmp_path / "small" / "config.json").read_text())["num_hidden_layers"] == 2
    again = SentenceEncoder.load(tmp_path / "small")
    np.testing.assert_allclose(again.encode(TEXTS), expected, atol=1e-6)
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(str(tmp_path / "small"), device="cpu")
    np.testing.assert_allclose(theirs.encode(TEXTS), expected, atol=1e-5)


def test_poolings_of_several_layers_know_the_new_number(tmp_path: Path) -> None:
    encoder = SentenceEncoder.load("mini", pooling="first_last_mean")
    keep_layers(encoder, [0])
    expected = encoder.encode(TEXTS)
    encoder.save(tmp_path / "one")
    np.testing.assert_allclose(
        SentenceEncoder.load(tmp_path / "one").encode(TEXTS), expected, atol=1e-6
    )


@pytest.mark.long
@pytest.mark.parametrize(
    "kind",
    ["bert", "mpnet", "distilbert", "deberta-v2", "modernbert", "gpt2", "qwen3", "gemma3_text"],
)
def test_families_reload_with_the_same_states(kind: str, tmp_path: Path) -> None:
    model = build(kind)
    depth = model.config.num_hidden_layers
    shell = SentenceEncoder.load("mini")
    shell.backbone = model
    keep_layers(shell, [0, depth - 1])
    ids = torch.arange(10, 20).unsqueeze(0)
    mask = torch.ones_like(ids)
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=mask).last_hidden_state
        model.save_pretrained(tmp_path)
        again = auto_class(kind).from_pretrained(tmp_path).eval()
        found = again(input_ids=ids, attention_mask=mask).last_hidden_state
    assert again.config.num_hidden_layers == 2
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("numbers", [[0, 9], [-1], [], [2, 0], [1, 1]])
def test_layers_that_do_not_exist_are_refused(encoder: SentenceEncoder, numbers: Any) -> None:
    depth = encoder.backbone.config.num_hidden_layers
    with pytest.raises(ConfigError) as caught:
        keep_layers(encoder, numbers)
    assert str(caught.value) == (
        f"model.keep_layers = {numbers}: the model has {depth} layers; give ascending numbers "
        f"from 0 to {depth - 1}"
    )
    assert encoder.backbone.config.num_hidden_layers == depth


@pytest.mark.parametrize(
    ("kind", "numbers", "message"),
    [
        ("t5", [1, 2], "layer 1 of a t5 has other weights than layer 0.*keep layers 0 to 1"),
        ("albert", [0], "an? albert has no list of 3 layers"),
    ],
)
def test_models_whose_layers_cannot_be_dropped_are_refused(
    kind: str, numbers: list[int], message: str
) -> None:
    shell = SentenceEncoder.load("mini")
    shell.backbone = build(kind)
    with pytest.raises(ModelError, match=message):
        keep_layers(shell, numbers)
