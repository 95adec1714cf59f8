"""Prompts and dimensions per call, compared with sentence-transformers on the same folder."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ConfigError, DataError, ModelError
from simcse_kit.metrics.vector_precision import quantize_vectors, vector_ranges
from tests.encoder.conftest import SENTENCES, edit_json

PROMPTS = {"query": "a dog ", "document": "the mat : ", "none": None}
POOLING = "1_Pooling/config.json"


@pytest.fixture
def folder(family: Callable[[str], Path], tmp_path: Path) -> Path:
    """An encoder with named prompts in the layout of sentence-transformers."""
    SentenceEncoder.load(family("bert")).save(tmp_path / "model")
    edit_json(tmp_path / "model" / "config_sentence_transformers.json", prompts=PROMPTS)
    return tmp_path / "model"


def theirs(folder: Path) -> Any:
    library = pytest.importorskip("sentence_transformers")
    return library.SentenceTransformer(str(folder), device="cpu")


CALLS: dict[str, dict[str, Any]] = {
    "default": {},
    "text": {"prompt": "A cat sat "},
    "name": {"prompt_name": "query"},
    "empty name": {"prompt_name": "none"},
    "dimensions": {"truncate_dim": 7},
    "both": {"prompt_name": "document", "truncate_dim": 12},
}


@pytest.mark.long
@pytest.mark.parametrize("default", [None, "query"])
@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize(
    "pooling", ["mean", "max", "lasttoken", "weightedmean", ["mean_sqrt_len_tokens", "max"]]
)
def test_vectors_equal_those_of_sentence_transformers(
    folder: Path, pooling: str | list[str], include: bool, default: str | None
) -> None:
    edit_json(folder / "config_sentence_transformers.json", default_prompt_name=default)
    settings = {"pooling_mode": pooling, "embedding_dimension": 32, "include_prompt": include}
    (folder / POOLING).write_text(json.dumps(settings))
    ours, other = SentenceEncoder.load(folder), theirs(folder)
    texts = [*SENTENCES, "", "a " * 60]
    for name, options in CALLS.items():
        expected = other.encode(texts, **options)
        np.testing.assert_allclose(ours.encode(texts, **options), expected, atol=1e-5, err_msg=name)
        streamed = np.concatenate(list(ours.encode_stream(texts, chunk=2, **options)))
        np.testing.assert_allclose(streamed, expected, atol=1e-5, err_msg=name)
    for role in ("encode_query", "encode_document"):
        expected = getattr(other, role)(texts)
        np.testing.assert_allclose(getattr(ours, role)(texts), expected, atol=1e-5, err_msg=role)
        expected = getattr(other, role)(texts, prompt="dog ")
        np.testing.assert_allclose(getattr(ours, role)(texts, prompt="dog "), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["mpnet", "modernbert"])
def test_a_prompt_is_left_out_in_packed_and_padded_batches(
    family: Callable[[str], Path], name: str
) -> None:
    encoder = SentenceEncoder.load(family(name))
    encoder.include_prompt = False
    packed = encoder.encode(SENTENCES, prompt="the dog ran ")
    batching = encoder.batching
    encoder.known_batching = type(batching)(packed=False, unpacked=batching.unpacked)
    padded = encoder.encode(SENTENCES, prompt="the dog ran ")
    encoder.include_prompt = True
    np.testing.assert_allclose(packed, padded, atol=1e-5)
    assert not np.allclose(packed, encoder.encode(SENTENCES, prompt="the dog ran "), atol=1e-3)


def test_prompts_survive_saving(folder: Path, tmp_path: Path) -> None:
    edit_json(folder / "config_sentence_transformers.json", default_prompt_name="document")
    edit_json(folder / POOLING, include_prompt=False)
    encoder = SentenceEncoder.load(folder)
    encoder.save(tmp_path / "again")
    again, other = SentenceEncoder.load(tmp_path / "again"), theirs(tmp_path / "again")
    assert again.prompts == {"query": "a dog ", "document": "the mat : ", "none": ""}
    assert (again.prompt, again.include_prompt) == ("the mat : ", False)
    assert other.default_prompt_name == "document"
    expected = encoder.encode_query(SENTENCES)
    np.testing.assert_allclose(other.encode_query(SENTENCES), expected, atol=1e-5)


def test_an_unknown_prompt_name_lists_the_known_ones(folder: Path) -> None:
    encoder = SentenceEncoder.load(folder)
    with pytest.raises(ConfigError, match=r"no prompt 'qery' .*'query'.*'query', 'doc"):
        encoder.encode("a", prompt_name="qery")
    encoder.prompts = {}
    with pytest.raises(ConfigError, match="it has no named prompt; give the text as prompt"):
        encoder.encode("a", prompt_name="query")
    assert encoder.encode("a", prompt="query: ").shape == (32,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": 3}, "prompt=3.*give a text"),
        ({"prompt": "a", "prompt_name": "query"}, "the text or the name, not both"),
        ({"truncate_dim": 33}, "33 dimensions are wanted.*have 32; allowed: 1 to 32"),
        ({"truncate_dim": 0}, "truncate_dim=0"),
        ({"output_precision": "int4"}, "'int4'; allowed: 'float32'"),
    ],
)
def test_wrong_options_are_refused(folder: Path, options: Any, message: str) -> None:
    encoder = SentenceEncoder.load(folder)
    with pytest.raises(ConfigError, match=message):
        encoder.encode(SENTENCES, **options)


@pytest.mark.parametrize("prompts", [["a"], {"query": 3}])
def test_prompts_that_are_not_texts_are_refused(folder: Path, prompts: Any) -> None:
    edit_json(folder / "config_sentence_transformers.json", prompts=prompts)
    with pytest.raises(ModelError, match="give "):
        SentenceEncoder.load(folder)


def test_a_passage_prompt_is_reported(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """sentence-transformers 6 does not use it for documents."""
    edit_json(folder / "config_sentence_transformers.json", prompts={"passage": "the mat : "})
    encoder = SentenceEncoder.load(folder)
    expected = theirs(folder).encode_document(SENTENCES)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            np.testing.assert_allclose(encoder.encode_document(SENTENCES), expected, atol=1e-5)
    messages = [record.getMessage() for record in caplog.records if "'passage'" in record.message]
    assert len(messages) == 1


def test_an_encoder_with_normalize_truncates_unit_vectors(folder: Path, tmp_path: Path) -> None:
    encoder = SentenceEncoder.load(folder)
    encoder.normalize = True
    encoder.save(tmp_path / "unit")
    other = theirs(tmp_path / "unit")
    for options, same in (
        ({}, {}),
        ({"normalize": True}, {"normalize_embeddings": True}),
    ):
        expected = other.encode(SENTENCES, truncate_dim=9, **same)
        found = encoder.encode(SENTENCES, truncate_dim=9, **options)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    raw = encoder.encode(SENTENCES, truncate_dim=9, normalize=False)
    np.testing.assert_allclose(raw, encoder.encode(SENTENCES, normalize=False)[:, :9], atol=1e-6)


@pytest.mark.parametrize("precision", ["float16", "int8", "uint8", "binary", "ubinary"])
def test_vectors_are_encoded_in_another_format(folder: Path, precision: Any) -> None:
    encoder = SentenceEncoder.load(folder)
    vectors = encoder.encode(SENTENCES)
    ranges = vector_ranges(vectors)
    expected = quantize_vectors(vectors, precision, ranges)
    found = encoder.encode(SENTENCES, output_precision=precision, ranges=ranges)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    tensor = encoder.encode(SENTENCES, to="torch", output_precision=precision, ranges=ranges)
    assert isinstance(tensor, torch.Tensor)
    np.testing.assert_array_equal(tensor.numpy(), expected)
    one = encoder.encode(SENTENCES[0], output_precision=precision, ranges=ranges)
    np.testing.assert_array_equal(one, expected[0])


def test_one_int8_vector_needs_ranges(folder: Path) -> None:
    with pytest.raises(DataError, match=r"two vectors or more.*vector_ranges"):
        SentenceEncoder.load(folder).encode("a dog", output_precision="int8")
