"""Every setting of the installed sentence-transformers is applied, harmless, or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from simcse_kit.encoder.dense import Dense
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.export.padded_module import SentenceGraph
from simcse_kit.encoder.folder.foreign_settings import MODULES, SETTINGS, Inside, Only, Rule, Use
from simcse_kit.errors import ConfigError, ModelError
from tests.encoder.conftest import SENTENCES, edit_json

ST = pytest.importorskip("sentence_transformers")
modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")

# Files that transformers reads itself when it opens a model or its tokenizer.
OF_TRANSFORMERS = {
    *("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "generation_config.json", "model.safetensors.index.json"),
}

Built = tuple[Path, Any]


@pytest.fixture(scope="module")
def build(
    family: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Built]:
    """A folder saved by sentence-transformers itself, and its model."""

    def make(*after: Any, hidden: bool = False, **options: Any) -> Built:
        folder = tmp_path_factory.mktemp("st")
        transformer = modules.Transformer(str(family("bert")))
        transformer.model.config.output_hidden_states = hidden
        model = ST.SentenceTransformer(modules=[transformer, *after], device="cpu", **options)
        with pytest.MonkeyPatch.context() as patch:  # a card asks the Hub and git
            patch.setattr(ST.SentenceTransformer, "_create_model_card", lambda *_, **__: None)
            model.save(str(folder))
        return folder, model

    return make


def pooled(mode: Any = "mean", **options: Any) -> Any:
    return modules.Pooling(32, pooling_mode=mode, **options)


def seeded(make: Callable[[], Any]) -> Any:
    torch.manual_seed(3)
    return make()


CASES: dict[str, tuple[Callable[[], list[Any]], dict[str, Any]]] = {
    **{
        f"pooling {mode}": (lambda mode=mode: [pooled(mode)], {})
        for mode in modules.Pooling.POOLING_MODES
    },
    "two poolings": (lambda: [pooled(("cls", "mean"))], {}),
    "three poolings in another order": (lambda: [pooled(("weightedmean", "cls", "max"))], {}),
    "two poolings and a dense": (
        lambda: [pooled(("mean", "lasttoken")), seeded(lambda: modules.Dense(64, 20))],
        {},
    ),
    "prompt": (
        lambda: [pooled()],
        {"prompts": {"query": "a dog "}, "default_prompt_name": "query"},
    ),
    "prompts without a default": (lambda: [pooled()], {"prompts": {"query": "a dog "}}),
    "prompt left out": (
        lambda: [pooled(include_prompt=False)],
        {"prompts": {"query": "a dog "}, "default_prompt_name": "query"},
    ),
    "prompt left out of the first token": (
        lambda: [pooled("cls", include_prompt=False)],
        {"prompts": {"query": "a dog "}, "default_prompt_name": "query"},
    ),
    "no prompt to leave out": (lambda: [pooled(include_prompt=False)], {}),
    "normalize": (lambda: [pooled(), modules.Normalize()], {}),
    "dropout": (lambda: [pooled(), modules.Dropout(0.3)], {}),
    "layer norm": (lambda: [pooled(), seeded(lambda: modules.LayerNorm(32))], {}),
    "dense": (lambda: [pooled(), seeded(lambda: modules.Dense(32, 20))], {}),
    "dense without bias": (
        lambda: [pooled(), seeded(lambda: modules.Dense(32, 20, bias=False))],
        {},
    ),
    "dense with a residual": (
        lambda: [pooled(), seeded(lambda: modules.Dense(32, 32, use_residual=True))],
        {},
    ),
    "dense of SiLU": (
        lambda: [pooled(), seeded(lambda: modules.Dense(32, 20, activation_function=nn.SiLU()))],
        {},
    ),
    "dense on tokens": (
        lambda: [
            seeded(lambda: modules.Dense(32, 32, module_input_name="token_embeddings")),
            pooled(),
        ],
        {},
    ),
    "layers": (
        lambda: [
            modules.WeightedLayerPooling(32, 3, 1, nn.Parameter(torch.tensor([1.0, 0.0, 1.0]))),
            pooled(),
        ],
        {"hidden": True},
    ),
    "truncated": (lambda: [pooled()], {"truncate_dim": 8}),
    "truncated to more than there is": (lambda: [pooled()], {"truncate_dim": 80}),
    "truncated after normalize": (
        lambda: [pooled(), modules.Normalize()],
        {"truncate_dim": 8},
    ),
    "truncated after dense and normalize": (
        lambda: [pooled(), seeded(lambda: modules.Dense(32, 20)), modules.Normalize()],
        {"truncate_dim": 8},
    ),
    "compared by dot product": (lambda: [pooled()], {"similarity_fn_name": "dot"}),
}
REFUSED = {
    "prompt left out of the first token": "include_prompt = false",
    "layer norm": "LayerNorm' is not supported",
    "dense with a residual": "use_residual True is not supported",
    "dense of SiLU": "SiLU' is not supported",
    "dense on tokens": "Dense",
}


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
def test_vectors_are_equal_or_refused(
    build: Callable[..., Built], case: str, tmp_path: Path
) -> None:
    make, options = CASES[case]
    folder, model = build(*make(), **options)
    known(folder)
    if case in REFUSED:
        with pytest.raises(ModelError) as caught:
            SentenceEncoder.load(folder)
        assert REFUSED[case] in str(caught.value)
        assert "\n" not in str(caught.value)
        return
    encoder = SentenceEncoder.load(folder)
    expected = model.encode(SENTENCES)
    np.testing.assert_allclose(encoder.encode(SENTENCES), expected, atol=1e-5)
    assert encoder.embedding_dim == expected.shape[1]
    encoder.save(tmp_path / "saved")
    known(tmp_path / "saved")
    for again in (SentenceEncoder.load, lambda path: ST.SentenceTransformer(str(path))):
        np.testing.assert_allclose(again(tmp_path / "saved").encode(SENTENCES), expected, atol=1e-5)


def known(folder: Path) -> None:
    """Compare the table with every key of every JSON file of a folder."""
    entries = json.loads((folder / "modules.json").read_text("utf-8"))
    kinds = {entry["path"]: entry["type"].rpartition(".")[2] for entry in entries}
    for path in folder.rglob("*.json"):
        part = path.parent.relative_to(folder).as_posix()
        module = kinds["" if part == "." else part]
        content = json.loads(path.read_text("utf-8"))
        if path.name in SETTINGS:
            for entry in content if isinstance(content, list) else [content]:
                assert_known(entry, SETTINGS[path.name], path)
        elif path.name.startswith("sentence_"):
            assert_known(content, SETTINGS["Transformer"], path)
        elif module in ("Transformer", "StaticEmbedding"):
            assert path.name in OF_TRANSFORMERS
        elif module in SETTINGS:
            assert_known(content, SETTINGS[module], path)


def assert_known(content: dict[str, Any], rules: dict[str, Rule], path: Path) -> None:
    assert set(content) <= set(rules), path
    for key, value in content.items():
        rule = rules[key]
        if isinstance(rule, Inside) and value:
            assert_known(value, dict(rule.rules), path)


def test_every_key_that_a_supported_module_can_write() -> None:
    for kind in MODULES:
        assert set(getattr(modules, kind).config_keys) <= set(SETTINGS[kind]), kind
        assert all(isinstance(rule, Use | Only | Inside) for rule in SETTINGS[kind].values())


def test_every_module_class(build: Callable[..., Built]) -> None:
    """Modules of the installed version that are not supported here are refused by name."""
    folder, _ = build(pooled())
    path = folder / "modules.json"
    whole = json.loads(path.read_text("utf-8"))
    others = sorted(set(modules.__all__) - set(MODULES))
    assert {"Router", "LSTM", "CLIPModel"} <= set(others)
    for name in others:
        kind = getattr(modules, name)
        for place in (0, 1):
            changed = [dict(entry) for entry in whole]
            changed[place]["type"] = f"{kind.__module__}.{name}"
            path.write_text(json.dumps(changed), encoding="utf-8")
            with pytest.raises(ModelError, match=rf"module '.*\.{name}' is not supported"):
                SentenceEncoder.load(folder)


BERT = "sentence_bert_config.json"
SETTING_CASES: list[tuple[str, dict[str, Any], str | None]] = [
    (BERT, {"max_seq_length": 8}, None),
    (BERT, {"do_lower_case": True}, None),
    (BERT, {"unpad_inputs": False}, None),
    (BERT, {"model_args": {"attn_implementation": "eager"}}, None),
    (BERT, {"processor_kwargs": {"model_max_length": 8}}, None),
    (BERT, {"tokenizer_args": {"use_fast": True}}, None),
    (BERT, {"config_kwargs": {}}, None),
    (
        BERT,
        {"do_lower_case": "false"},
        "do_lower_case is 'false'; give true",
    ),
    (
        BERT,
        {"transformer_task": "fill-mask"},
        "transformer_task 'fill-mask'",
    ),
    (BERT, {"backend": "onnx"}, "backend 'onnx' is not supported"),
    (BERT, {"model_args": {"subfolder": "x"}}, "model_args.subfolder = 'x'"),
    (
        BERT,
        {"processor_kwargs": {"truncation_side": "left"}},
        "processor_kwargs.truncation_side 'left' is not supported; supported: 'right'",
    ),
    (
        BERT,
        {"config_args": {"num_hidden_layers": 1}},
        "num_hidden_layers = 1",
    ),
    (BERT, {"processing_kwargs": {"text": {"x": 1}}}, "processing_kwargs"),
    (BERT, {"query_expansion": {"length": 8}}, "query_expansion"),
    (
        BERT,
        {"module_output_name": "sentence_embedding"},
        "module_output_name",
    ),
    (
        BERT,
        {"modality_config": {"text": {"method": "get_text_features"}}},
        "modality_config.text.method 'get_text_features' is not supported; supported: 'forward'",
    ),
    (BERT, {"model_args": [1]}, "model_args is [1], not a JSON object"),
    (BERT, {"stride": 4}, "the setting stride = 4 is not known"),
    (BERT, {"stride": None, "later": {}}, None),
    ("1_Pooling/config.json", {"stride": 4}, "the setting stride = 4 is not known"),
    ("1_Pooling/config.json", {"include_prompt": "no"}, "include_prompt is 'no'; give true"),
    ("config_sentence_transformers.json", {"model_type": "SparseEncoder"}, "model_type"),
    ("config_sentence_transformers.json", {"scale": 2}, "the setting scale = 2 is not known"),
    ("config_sentence_transformers.json", {"truncate_dim": 0}, "truncate_dim is 0; give"),
    ("config_sentence_transformers.json", {"truncate_dim": "8"}, "truncate_dim is '8'; give"),
    ("config_sentence_transformers.json", {"truncate_dim": True}, "truncate_dim is True; give"),
]


@pytest.mark.long
@pytest.mark.parametrize(("file", "changes", "message"), SETTING_CASES)
def test_settings_give_equal_vectors_or_are_refused(
    build: Callable[..., Built], file: str, changes: dict[str, Any], message: str | None
) -> None:
    folder, _ = build(pooled())
    content = json.loads((folder / file).read_text("utf-8"))
    (folder / file).write_text(json.dumps(content | changes), encoding="utf-8")
    if message is not None:
        with pytest.raises(ModelError) as caught:
            SentenceEncoder.load(folder)
        assert message in str(caught.value)
        assert file in str(caught.value)
        return
    texts = [*SENTENCES, "A CAT and The Dog", "a " * 20]
    if not {"stride", "later"} & set(changes):  # which sentence-transformers does not take
        theirs = ST.SentenceTransformer(str(folder), device="cpu").encode(texts)
        np.testing.assert_allclose(SentenceEncoder.load(folder).encode(texts), theirs, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"truncation_side": "left"},
        {"padding_side": "left"},
        {"model_max_length": 8},
        {"do_lower_case": True},
        {"mask_token": "[UNK]"},
    ],
)
def test_settings_that_transformers_reads(
    build: Callable[..., Built], changes: dict[str, Any]
) -> None:
    folder, _ = build(pooled())
    edit_json(folder / "tokenizer_config.json", **changes)
    texts = ["A CAT and The Dog", " ".join(["a cat sat on the mat near the old house"] * 3)]
    # One at a time: padding on the left moves the positions of BERT there.
    theirs = [ST.SentenceTransformer(str(folder), device="cpu").encode(text) for text in texts]
    np.testing.assert_allclose(SentenceEncoder.load(folder).encode(texts), theirs, atol=1e-5)


def test_truncation_acts_in_all_uses_of_an_encoder(build: Callable[..., Built]) -> None:
    folder, model = build(pooled(), modules.Normalize(), truncate_dim=8)
    encoder = SentenceEncoder.load(folder)
    expected = model.encode(SENTENCES)
    np.testing.assert_allclose(
        np.concatenate(list(encoder.encode_stream(SENTENCES, chunk=3))), expected, atol=1e-5
    )
    np.testing.assert_allclose(
        encoder.encode(SENTENCES, normalize=True),
        model.encode(SENTENCES, normalize_embeddings=True),
        atol=1e-5,
    )
    np.testing.assert_allclose(
        encoder.similarity(SENTENCES, SENTENCES), model.similarity(expected, expected), atol=1e-5
    )
    # Another pooling is truncated as well.
    other = SentenceEncoder.load(folder, pooling="max")
    whole = SentenceEncoder.load(folder, pooling="max")
    assert whole.head is not None
    whole.head[-1].out_features = 32
    np.testing.assert_allclose(other.encode("a cat"), whole.encode("a cat")[:8], atol=1e-6)
    # Training goes through it.
    ids = torch.tensor([[2, 5, 6, 3]])
    assert encoder(ids, torch.ones_like(ids)).shape == (1, 8)
    # What is exported is this graph.
    exported = SentenceGraph(encoder)(ids, torch.ones_like(ids))
    assert [tuple(part.shape) for part in exported] == [(1, 8)]
    assert torch.allclose(exported[0], encoder(ids, torch.ones_like(ids)), atol=1e-5)
    with pytest.raises(ModelError, match="remove truncate_dim from config_sentence_transformers"):
        encoder.add_stage(Dense(8, 8))
    edit_json(folder / "config_sentence_transformers.json", truncate_dim=None)
    SentenceEncoder.load(folder).add_stage(Dense(32, 8))


def test_a_similarity_other_than_cosine_is_logged(
    build: Callable[..., Built], caplog: pytest.LogCaptureFixture
) -> None:
    folder, _ = build(pooled(), similarity_fn_name="euclidean")
    SentenceEncoder.load(folder)
    assert "compares vectors by 'euclidean'; this kit uses the cosine" in caplog.text


def test_a_length_beyond_the_positions_is_refused(build: Callable[..., Built]) -> None:
    folder, _ = build(pooled())
    edit_json(folder / "sentence_bert_config.json", processor_kwargs={"model_max_length": 999})
    with pytest.raises((ModelError, ConfigError), match="max_length is 999"):
        SentenceEncoder.load(folder)
