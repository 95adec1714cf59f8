"""Static embeddings of sentence-transformers and model2vec: opening, vectors, saving, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.export.padded_module import SentenceGraph
from simcse_kit.encoder.folder.resolve import EMBEDDED
from simcse_kit.errors import ConfigError, ModelError
from simcse_kit.training.api import train

ST = pytest.importorskip("sentence_transformers")
modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")

TEXTS = ["A dog runs.", "", "Prices rose a lot today, said the minister.", "A dog runs.", "☃ dog"]
LONG = "dog cat " * 400


def table(rows: int, width: int = 16) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(2))


def core() -> Tokenizer:
    return Tokenizer.from_file(str(EMBEDDED["mini"] / "tokenizer.json"))


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A folder saved by sentence-transformers, and its model."""

    def make(*after: Any) -> tuple[Path, Any]:
        size = core().get_vocab_size()
        static = modules.StaticEmbedding(core(), embedding_weights=table(size))
        model = ST.SentenceTransformer(modules=[static, *after], device="cpu")
        monkeypatch.setattr(ST.SentenceTransformer, "_create_model_card", lambda *_, **__: None)
        model.save(str(tmp_path / "st"))
        return tmp_path / "st", model

    return make


@pytest.fixture
def model2vec(tmp_path: Path) -> Path:
    """A folder in the layout of model2vec, with a quantized vocabulary and weights of tokens."""
    folder = tmp_path / "model2vec"
    folder.mkdir()
    size = core().get_vocab_size()
    weights = {
        "embeddings": table(100),
        "mapping": torch.arange(size) % 100,
        "weights": torch.linspace(0.5, 1.5, size, dtype=torch.float64),
    }
    save_file(weights, folder / "model.safetensors")
    core().save(str(folder / "tokenizer.json"))
    settings = {
        "model_type": "model2vec",
        "normalize": True,
        "hidden_dim": 16,
        "seq_length": 1000000,
    }
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def test_a_prompt_is_put_in_front(saved: Any) -> None:
    encoder = SentenceEncoder.load(saved()[0])
    expected = encoder.encode("A dog runs.")
    np.testing.assert_array_equal(encoder.encode("runs.", prompt="A dog "), expected)


def by_hand(folder: Path, text: str) -> np.ndarray:
    """The vector of model2vec: the mean over known tokens, at most 512, with length 1."""
    weights = load_file(folder / "model.safetensors")
    rows = weights["embeddings"][weights["mapping"]] * weights["weights"][:, None].float()
    unknown = core().token_to_id("[UNK]")
    ids = [i for i in core().encode(text, add_special_tokens=False).ids if i != unknown][:512]
    mean = rows[ids].mean(0) if ids else torch.zeros(16)
    return torch.nn.functional.normalize(mean, dim=0).numpy()


@pytest.mark.parametrize(
    "after",
    [
        lambda: [],
        lambda: [modules.Normalize()],
        lambda: [modules.Dense(16, 8), modules.Normalize()],
    ],
)
def test_vectors_equal_those_of_sentence_transformers(
    saved: Any, after: Any, tmp_path: Path
) -> None:
    folder, model = saved(*after())
    encoder = SentenceEncoder.load(folder)
    texts = [*TEXTS, LONG]
    expected = model.encode(texts)
    np.testing.assert_allclose(encoder.encode(texts), expected, atol=1e-5)
    np.testing.assert_allclose(encoder.encode(texts, batch_size=1), expected, atol=1e-5)
    assert encoder.embedding_dim == expected.shape[1]
    encoder.save(tmp_path / "again")
    for load in (SentenceEncoder.load, lambda path: ST.SentenceTransformer(str(path))):
        np.testing.assert_allclose(load(tmp_path / "again").encode(texts), expected, atol=1e-5)


def test_vectors_equal_those_of_model2vec(model2vec: Path, tmp_path: Path) -> None:
    encoder = SentenceEncoder.load(model2vec)
    texts = [*TEXTS, LONG]
    expected = np.stack([by_hand(model2vec, text) for text in texts])
    np.testing.assert_allclose(encoder.encode(texts), expected, atol=1e-5)
    assert encoder.max_length == 512
    encoder.save(tmp_path / "again")
    again = SentenceEncoder.load(tmp_path / "again")
    np.testing.assert_allclose(again.encode(texts), expected, atol=1e-5)
    # With the list of modules that newer versions write.
    entry = {"idx": 0, "name": "0", "type": "sentence_transformers.models.StaticEmbedding"}
    (model2vec / "modules.json").write_text(json.dumps([{**entry, "path": "."}]), encoding="utf-8")
    plain = SentenceEncoder.load(model2vec)
    np.testing.assert_allclose(plain.encode(texts, normalize=True), expected, atol=1e-5)
    # sentence-transformers neither drops unknown tokens nor cuts.
    theirs = ST.SentenceTransformer(str(model2vec), device="cpu")
    np.testing.assert_allclose(theirs.encode(TEXTS[0]), plain.encode(TEXTS[0]), atol=1e-5)


def test_a_maximum_length_is_kept(model2vec: Path, tmp_path: Path) -> None:
    encoder = SentenceEncoder.load(model2vec, max_length=3)
    vectors = encoder.encode([LONG, "dog cat dog"])
    np.testing.assert_array_equal(vectors[0], vectors[1])
    encoder.save(tmp_path / "short")
    assert SentenceEncoder.load(tmp_path / "short").max_length == 3


@pytest.mark.long
def test_static_embeddings_can_be_trained(saved: Any, tmp_path: Path) -> None:
    folder, _ = saved()
    pairs = [(f"A {word} is here.", f"Here is a {word}.") for word in "cat dog bird cow".split()]
    result = train(
        pairs, model=folder, output=tmp_path / "out", max_steps=3, batch_size=4, report=False,
        settings={"training.learning_rate": 0.1, "evaluation.held_out": 0},
    )  # fmt: skip
    moved = result.encoder.encode(TEXTS) - SentenceEncoder.load(folder).encode(TEXTS)
    assert np.abs(moved[0]).max() > 1e-3
    assert not moved[1].any()


def test_precisions_of_linear_maps_do_not_apply(
    saved: Any, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = SentenceEncoder.load(saved()[0], device="cpu")
    for precision in ("int8", "fp16"):
        with pytest.raises(ConfigError, match=precision):
            encoder.encode(TEXTS, precision=precision)
    np.testing.assert_array_equal(encoder.encode(TEXTS, precision="bf16"), encoder.encode(TEXTS))
    assert "bf16 is not supported for static; using fp32" in caplog.text


def test_what_does_not_fit_is_refused(saved: Any, model2vec: Path) -> None:
    folder, _ = saved()
    with pytest.raises(ConfigError, match="static embeddings, which are averaged; pooling 'max'"):
        SentenceEncoder.load(folder, pooling="max")
    with pytest.raises(ModelError, match="need no graph, so they are not exported"):
        SentenceGraph(SentenceEncoder.load(folder))
    with pytest.raises(ConfigError, match="max_length is 1"):
        SentenceEncoder.load(folder, max_length=1)

    def refused(where: Path, weights: dict[str, torch.Tensor], message: str) -> None:
        save_file(weights, where / "model.safetensors")
        with pytest.raises(ModelError, match=message) as caught:
            SentenceEncoder.load(where)
        assert "\n" not in str(caught.value)

    good = load_file(folder / "model.safetensors")["embedding.weight"]
    refused(folder, {"embedding.weight": good[:50].contiguous()}, "but the table only 50 rows")
    refused(folder, {"embedding.weight": good[0]}, r"vectors has shape \(16,\)")
    refused(folder, {"embedding.weight": torch.full_like(good, torch.nan)}, "holds NaN")
    refused(folder, {"other": good}, "has no table of token vectors")
    whole = load_file(model2vec / "model.safetensors")
    refused(model2vec, whole | {"mapping": whole["mapping"] + 1}, "do not fit the table of 100")
    refused(model2vec, whole | {"weights": whole["weights"][:5]}, "do not fit the table of")
    save_file(whole, model2vec / "model.safetensors")
    (model2vec / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=r"tokenizer\.json cannot be opened"):
        SentenceEncoder.load(model2vec)
    entries = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps([*entries, entries[0]]))
    with pytest.raises(ModelError, match="StaticEmbedding must come first"):
        SentenceEncoder.load(folder)
