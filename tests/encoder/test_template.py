"""Encoders that put sentences into a template and read the mask token."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.packing.layout import Batching
from simcse_kit.encoder.tokenization import Template, check_template
from simcse_kit.errors import ConfigError, ModelError
from tests.encoder.conftest import SENTENCES

TEMPLATE = 'the "[X]" is [MASK] .'
TEXTS = [*SENTENCES[:6], "", "a cat [MASK] sat", "the " * 60]


def words(encoder: SentenceEncoder, text: str) -> str:
    row = encoder.tokenize([text])[0][0]
    return " ".join(encoder.tokenizer.convert_ids_to_tokens(row))


def test_the_sentence_stands_in_the_template(tiny_encoder_dir: Path) -> None:
    encoder = SentenceEncoder.load(tiny_encoder_dir, template="the [X] is [MASK] .")
    assert encoder.pooling == "mask"
    assert words(encoder, "small cat") == "[CLS] the small cat is [MASK] . [SEP]"
    assert words(encoder, "") == "[CLS] the is [MASK] . [SEP]"
    rows, cut = encoder.tokenize(["cat", "the " * 60], max_length=10)
    assert cut == 1
    # the sentence is cut, never the template
    assert words(encoder, "cat") == "[CLS] the cat is [MASK] . [SEP]"
    assert len(rows[1]) == 10
    assert rows[1][-4:] == rows[0][-4:]


@pytest.mark.parametrize(
    "template", ["the [X] is [MASK] .", "[MASK] is the [X]", "[X] [MASK]", "a [MASK] : [X] ."]
)
@pytest.mark.parametrize("packed", [True, False])
def test_the_vector_is_the_state_at_the_mask_token(
    tiny_encoder_dir: Path, template: str, packed: bool
) -> None:
    encoder = SentenceEncoder.load(tiny_encoder_dir, template=template)
    if not packed:
        encoder.known_batching = Batching(packed=False)
    assert encoder.packs is packed
    vectors = encoder.encode(TEXTS)
    for text, vector in zip(TEXTS, vectors, strict=True):
        (ids,), _ = encoder.tokenize([text])
        masks = [n for n, token in enumerate(ids) if token == encoder.tokenizer.mask_token_id]
        # a mask token of the sentence itself is not the one that is read
        place = masks[-1 if template.index("[X]") < template.index("[MASK]") else 0]
        with torch.no_grad():
            states = encoder.backbone(torch.tensor([ids])).last_hidden_state[0]
        np.testing.assert_allclose(vector, states[place].numpy(), atol=1e-5)


@pytest.mark.parametrize("name", ["roberta", "albert", "distilbert", "mpnet", "modernbert"])
def test_packed_and_padded_agree(family: Callable[[str], Path], name: str) -> None:
    encoder = SentenceEncoder.load(family(name), template=TEMPLATE, max_length=30)
    packed = encoder.encode(TEXTS)
    assert encoder.packs
    encoder.known_batching = Batching(packed=False)
    np.testing.assert_allclose(encoder.encode(TEXTS), packed, atol=2e-5)


def test_saved_and_opened_it_encodes_the_same(tiny_encoder_dir: Path, tmp_path: Path) -> None:
    encoder = SentenceEncoder.load(tiny_encoder_dir, template=TEMPLATE)
    encoder.save(tmp_path / "saved")
    again = SentenceEncoder.load(tmp_path / "saved")
    assert again.template == encoder.template
    assert np.array_equal(again.encode(TEXTS), encoder.encode(TEXTS))
    card = (tmp_path / "saved/README.md").read_text(encoding="utf-8")
    assert TEMPLATE in card
    assert "SentenceTransformer(" not in card


def test_another_pooling_leaves_the_template_out(
    tiny_encoder_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    SentenceEncoder.load(tiny_encoder_dir, template=TEMPLATE).save(tmp_path / "saved")
    with caplog.at_level(logging.WARNING):
        other = SentenceEncoder.load(tmp_path / "saved", pooling="mean")
    assert "was saved with pooling 'mask'" in caplog.text
    assert other.template is None
    plain = SentenceEncoder.load(tiny_encoder_dir, pooling="mean")
    assert np.array_equal(other.encode(TEXTS), plain.encode(TEXTS))


def test_sentence_transformers_refuses_the_folder(tiny_encoder_dir: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    SentenceEncoder.load(tiny_encoder_dir, template=TEMPLATE).save(tmp_path / "saved")
    with pytest.raises(ValueError, match="mask"):
        SentenceTransformer(str(tmp_path / "saved"))


def test_a_folder_without_its_template_is_refused(tiny_encoder_dir: Path, tmp_path: Path) -> None:
    SentenceEncoder.load(tiny_encoder_dir, template=TEMPLATE).save(tmp_path / "saved")
    path = tmp_path / "saved/config_sentence_transformers.json"
    texts = json.loads(path.read_text(encoding="utf-8"))
    assert texts.pop("template") == TEMPLATE
    path.write_text(json.dumps(texts), encoding="utf-8")
    with pytest.raises(ModelError, match="lacks the template that pooling 'mask' needs"):
        SentenceEncoder.load(tmp_path / "saved")


@pytest.mark.parametrize(
    "text", ["", "no place", "[X]", "[MASK]", "[X] [X] [MASK]", "[X] [MASK] [MASK]"]
)
def test_what_is_no_template(tiny_encoder_dir: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"must hold \[X\] once") as caught:
        check_template(text)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"must hold \[X\] once"):
        SentenceEncoder.load(tiny_encoder_dir, template=text)


def test_settings_that_contradict_each_other(tiny_encoder_dir: Path) -> None:
    with pytest.raises(ConfigError, match="a template needs pooling 'mask', not 'mean'"):
        SentenceEncoder.load(tiny_encoder_dir, template=TEMPLATE, pooling="mean")
    with pytest.raises(ConfigError, match=r"pooling 'mask' needs a template, and .* has none"):
        SentenceEncoder.load(tiny_encoder_dir, pooling="mask")
    encoder = SentenceEncoder.load(tiny_encoder_dir, template=TEMPLATE)
    with pytest.raises(ConfigError, match=r"max_length is 8 but the template .* use at least 9"):
        encoder.encode(["the cat"], max_length=8)
    encoder.tokenizer.mask_token = None
    with pytest.raises(ModelError, match="the tokenizer has none"):
        Template.of(TEMPLATE, encoder.tokenizer)


def test_an_exported_encoder_keeps_its_template(tiny_encoder_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    from simcse_kit.encoder.export.export import export_encoder

    encoder = SentenceEncoder.load(tiny_encoder_dir, template=TEMPLATE)
    export_encoder(encoder, tmp_path / "exported", format="openvino")
    opened = SentenceEncoder.load(tmp_path / "exported")
    assert opened.template == encoder.template
    np.testing.assert_allclose(opened.encode(TEXTS), encoder.encode(TEXTS), atol=1e-4)
    assert TEMPLATE in (tmp_path / "exported/README.md").read_text(encoding="utf-8")
    with pytest.raises(ConfigError, match="export the model again to use another template"):
        SentenceEncoder.load(tmp_path / "exported", template="[X] [MASK]")
