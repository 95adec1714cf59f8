"""Dropout, heads and the masked-LM view of an encoder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from simcse_kit.encoder.dense import Dense
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ConfigError, ModelError
from tests.encoder.conftest import FAMILIES, SMALL, edit_json

IDS = torch.tensor([[2, 5, 6, 7, 8, 3], [2, 9, 3, 0, 0, 0]])
MASK = (IDS != 0).long()


@pytest.mark.parametrize("name", FAMILIES)
def test_dropout(family: Callable[[str], Path], name: str) -> None:
    encoder = SentenceEncoder.load(family(name))
    found = encoder.dropouts()
    if name not in ("albert", "modernbert"):  # theirs are 0
        assert set(found.values()) == {0.1}
        assert any("attention" in place for place in found)
        assert any("embeddings" in place for place in found)
    encoder.train()
    encoder.set_dropout(0.4)
    assert set(encoder.dropouts().values()) == {0.4}
    assert not torch.allclose(encoder(IDS, MASK), encoder(IDS, MASK))
    encoder.set_dropout(0)
    assert torch.equal(encoder(IDS, MASK), encoder(IDS, MASK))
    encoder.set_dropout(0.4)  # back on, also where a model leaves dropouts of 0 out
    assert len(encoder.dropouts()) >= len(found)
    assert set(encoder.dropouts().values()) == {0.4}


@pytest.mark.parametrize("name", ["bert", "distilbert", "albert", "modernbert"])
def test_attention_dropout_acts_alone(family: Callable[[str], Path], name: str) -> None:
    """With every other dropout at 0, that of attention still makes two passes differ."""
    encoder = SentenceEncoder.load(family(name)).train()
    encoder.set_dropout(0.5)
    for module in encoder.backbone.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    inside = [m for n, m in encoder.backbone.named_modules() if n.lower().endswith("attn")]
    inside += [m for n, m in encoder.backbone.named_modules() if n.endswith(("self", "attention"))]
    for module in inside:
        if isinstance(getattr(module, "dropout", None), torch.nn.Dropout):
            module.dropout.p = 0.5
        if isinstance(getattr(module, "attention_dropout", None), torch.nn.Dropout):
            module.attention_dropout.p = 0.5
    assert not torch.allclose(encoder(IDS, MASK), encoder(IDS, MASK))


def test_dropout_reaches_the_saved_configuration(
    family: Callable[[str], Path], tmp_path: Path
) -> None:
    encoder = SentenceEncoder.load(family("bert"))
    encoder.set_dropout(0.25)
    encoder.save(tmp_path / "saved")
    assert set(SentenceEncoder.load(tmp_path / "saved").dropouts().values()) == {0.25}


def test_dropout_of_integer_zero(family: Callable[[str], Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(family("modernbert"), tmp_path / "zero"))
    edit_json(folder / "config.json", attention_dropout=0, mlp_dropout=0, embedding_dropout=0)
    encoder = SentenceEncoder.load(folder).train()
    assert set(encoder.dropouts().values()) == {0.0}
    encoder.set_dropout(0.1)
    places = encoder.dropouts()
    assert any(place.endswith("attention_dropout") for place in places)
    assert any(place.endswith("out_drop") for place in places)
    assert set(places.values()) == {0.1}


@pytest.mark.parametrize("wrong", [-0.1, 1.0, float("nan")])
def test_impossible_dropout(family: Callable[[str], Path], wrong: float) -> None:
    with pytest.raises(ConfigError, match="allowed: 0 <= p < 1"):
        SentenceEncoder.load(family("bert")).set_dropout(wrong)


def test_set_head(family: Callable[[str], Path]) -> None:
    encoder = SentenceEncoder.load(family("bert"), pooling="cls_before_pooler")
    first = encoder(IDS, MASK)
    dense = Dense(32, 32)
    encoder.set_head(dense)
    assert encoder.pooling == "cls"
    torch.testing.assert_close(encoder(IDS, MASK), torch.tanh(dense.linear(first)))
    encoder = SentenceEncoder.load(family("bert"))
    encoder.set_head(Dense(32, 8))
    assert (encoder.pooling, encoder.embedding_dim) == ("mean", 8)


def test_a_head_pooling_needs_its_head(family: Callable[[str], Path]) -> None:
    encoder = SentenceEncoder.load(family("bert"))
    with pytest.raises(ModelError, match="pooling 'cls' needs a head"):
        SentenceEncoder(encoder.backbone, encoder.tokenization, pooling="cls")
    with pytest.raises(ModelError, match="unknown activation 'swish'"):
        Dense(2, 2, activation="swish")


# ---------------------------------------------------------------- masked language modelling


@pytest.fixture(scope="module")
def masked(
    tiny_encoder_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        import transformers

        config_class, extra = FAMILIES[name]
        config = getattr(transformers, config_class)(**SMALL | extra)
        torch.manual_seed(2)
        folder = tmp_path_factory.mktemp("masked")
        transformers.AutoModelForMaskedLM.from_config(config).save_pretrained(folder)
        for path in tiny_encoder_dir.glob("tokenizer*"):
            shutil.copy(path, folder)
        return folder

    return make


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "mpnet", "albert", "modernbert"])
def test_masked_lm(masked: Callable[[str], Path], name: str) -> None:
    from transformers import AutoModelForMaskedLM

    folder = masked(name)
    encoder = SentenceEncoder.load(folder)
    head = encoder.masked_lm()
    assert not head.training
    logits = head(input_ids=IDS, attention_mask=MASK).logits
    assert logits.shape == (*IDS.shape, 47)
    reference = AutoModelForMaskedLM.from_pretrained(folder).eval()
    expected = reference(input_ids=IDS, attention_mask=MASK).logits
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    # one storage: a step on the head moves the encoder, and the output layer stays tied
    words = encoder.backbone.get_input_embeddings().weight
    assert head.get_input_embeddings().weight is words
    assert head.get_output_embeddings().weight is words
    assert head.base_model is encoder.backbone
    known = {id(parameter) for parameter in head.parameters()}
    assert {id(parameter) for parameter in encoder.backbone.parameters()} <= known


def test_no_masked_lm_head(family: Callable[[str], Path]) -> None:
    encoder = SentenceEncoder.load(family("bert"))
    with pytest.raises(ModelError, match=r"has no masked-LM head \(.*set method.mlm_weight = 0"):
        encoder.masked_lm()
    encoder.source = None
    with pytest.raises(ModelError, match="was not loaded from a folder"):
        encoder.masked_lm()
