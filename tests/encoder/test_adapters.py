"""Adapter folders: loading, vectors and refusals."""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.folder.fingerprint import fingerprint
from simcse_kit.errors import MissingExtraError, ModelError, SimcseError
from tests.encoder.conftest import SENTENCES, edit_json, naive

with_peft = pytest.mark.skipif(find_spec("peft") is None, reason="peft is not installed")

Family = Callable[[str], Path]
Copy = Callable[[Path], Path]


@pytest.fixture(scope="module")
def adapter(
    family: Family, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[Path, Callable[[list[str]], np.ndarray]]]:
    """A random adapter saved by peft, and the mean vectors that peft computes with it."""

    def make(name: str = "bert", kind: str = "LoraConfig", **options: Any) -> Any:
        import peft
        from transformers import AutoModel, AutoTokenizer

        folder = tmp_path_factory.mktemp("adapter")
        if kind == "LoraConfig":
            layers = ["query", "value", "dense"]
            options = {"r": 4, "target_modules": layers, "init_lora_weights": False, **options}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(4)
            model = peft.get_peft_model(
                AutoModel.from_pretrained(family(name)),
                getattr(peft, kind)(**options),
            )
            model.save_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(family(name))

        def expected(texts: list[str]) -> np.ndarray:
            rows = []
            for text in texts:
                ids = tokenizer(text, truncation=True, max_length=32, return_tensors="pt")
                with torch.no_grad():
                    rows.append(model.eval()(ids["input_ids"]).last_hidden_state[0].mean(0))
            return torch.stack(rows).numpy()

        return folder, expected

    return make


def refused(folder: Path, kind: type[SimcseError] = ModelError, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        SentenceEncoder.load(folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.long
@with_peft
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("bert", {}),
        ("roberta", {"use_rslora": True}),
        ("bert", {"use_dora": True}),
        ("bert", {"bias": "all"}),
        ("modernbert", {"target_modules": ["Wqkv", "Wo"]}),
    ],
)
def test_merged_adapters_give_the_vectors_of_peft(
    adapter: Any, name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    folder, expected = adapter(name, **options)
    encoder = SentenceEncoder.load(folder)
    vectors = encoder.encode(SENTENCES)
    np.testing.assert_allclose(vectors, expected(SENTENCES), atol=1e-4)
    assert encoder.source == folder
    # What is saved is a whole model, and trains in all of its weights.
    encoder.save(tmp_path / "saved")
    assert not (tmp_path / "saved" / "adapter_config.json").exists()
    np.testing.assert_allclose(
        SentenceEncoder.load(tmp_path / "saved").encode(SENTENCES), vectors, atol=1e-6
    )
    np.testing.assert_allclose(
        naive(tmp_path / "saved", "mean", SENTENCES).numpy(), vectors, atol=1e-4
    )
    assert all(part.requires_grad for part in encoder.parameters())
    assert not any("lora" in key for key in encoder.state_dict())


@with_peft
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("AdaLoraConfig", {"total_step": 10, "init_lora_weights": False}),
        ("BOFTConfig", {"boft_block_size": 4, "init_weights": False}),
        ("IA3Config", {"feedforward_modules": [], "init_ia3_weights": False}),
        ("LoHaConfig", {"r": 4, "init_weights": False}),
        ("LoKrConfig", {"r": 4, "init_weights": False}),
        ("OFTConfig", {"r": 0, "oft_block_size": 16, "init_weights": False}),
        ("VeraConfig", {"r": 4, "init_weights": False}),
    ],
)
def test_other_kinds_of_adapters_give_the_vectors_of_peft(
    adapter: Any, family: Family, kind: str, options: dict[str, Any]
) -> None:
    folder, expected = adapter(kind=kind, target_modules=["query", "value"], **options)
    vectors = SentenceEncoder.load(folder).encode(SENTENCES)
    np.testing.assert_allclose(vectors, expected(SENTENCES), atol=1e-4)
    assert np.abs(vectors - SentenceEncoder.load(family("bert")).encode(SENTENCES)).max() > 1e-3


@with_peft
def test_of_a_model_with_a_head(adapter: Any, copy: Copy) -> None:
    """In adapters of classifiers the transformer is a submodule, and the head has weights."""
    folder, expected = adapter()
    folder = copy(folder)
    path = folder / "adapter_model.safetensors"
    before = "base_model.model."
    weights = {key.replace(before, f"{before}bert.", 1): v for key, v in load_file(path).items()}
    save_file(weights | {f"{before}classifier.weight": torch.ones(2, 32)}, path)
    np.testing.assert_allclose(
        SentenceEncoder.load(folder).encode(SENTENCES), expected(SENTENCES), atol=1e-4
    )


@with_peft
def test_recipes(adapter: Any, family: Family, tmp_path: Path) -> None:
    # The recipe of the adapter's folder, as sentence-transformers writes it, ...
    folder, expected = adapter()
    mine = Path(shutil.copytree(folder, tmp_path / "mine"))
    plain = SentenceEncoder.load(family("bert"), pooling="mean", max_length=16)
    plain.normalize = True
    plain.save(tmp_path / "base")
    for name in ("modules.json", "1_Pooling", "sentence_bert_config.json"):
        source = tmp_path / "base" / name
        if source.is_dir():
            shutil.copytree(source, mine / name)
        else:
            shutil.copy(source, mine / name)
    (mine / "2_Normalize").mkdir()
    encoder = SentenceEncoder.load(mine)
    unit = expected(SENTENCES)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    assert (encoder.normalize, encoder.max_length) == (True, 16)
    np.testing.assert_allclose(encoder.encode(SENTENCES[:1]), unit[:1], atol=1e-4)
    # ... else that of the model that was adapted.
    bare = Path(shutil.copytree(folder, tmp_path / "bare"))
    edit_json(bare / "adapter_config.json", base_model_name_or_path=str(tmp_path / "base"))
    encoder = SentenceEncoder.load(bare)
    assert (encoder.normalize, encoder.max_length) == (True, 16)
    np.testing.assert_allclose(encoder.encode(SENTENCES[:1]), unit[:1], atol=1e-4)


@with_peft
def test_training_and_the_mlm_head(adapter: Any, tiny_encoder_dir: Path, tmp_path: Path) -> None:
    folder, _ = adapter()
    edited = Path(shutil.copytree(folder, tmp_path / "edited"))
    edit_json(edited / "adapter_config.json", base_model_name_or_path=str(tiny_encoder_dir))
    assert refused(edited)  # of another model: the shapes or names do not fit
    encoder = SentenceEncoder.load(folder).train()
    ids = torch.tensor([[2, 5, 6, 3]])
    encoder(ids, torch.ones_like(ids)).sum().backward()
    query = encoder.backbone.get_submodule("encoder.layer.0.attention.self.query")
    assert query.weight.grad is not None
    with pytest.raises(ModelError, match="no masked-LM head"):
        encoder.masked_lm()  # that of the base, which has none here


@with_peft
def test_the_fingerprint_includes_the_base_model(
    adapter: Any, family: Family, tmp_path: Path
) -> None:
    folder, _ = adapter()
    base = Path(shutil.copytree(family("bert"), tmp_path / "base"))
    mine = Path(shutil.copytree(folder, tmp_path / "mine"))
    edit_json(mine / "adapter_config.json", base_model_name_or_path=str(base))
    before = fingerprint(mine)
    assert fingerprint(mine) == before
    weights = load_file(base / "model.safetensors")
    save_file({key: value * 2 for key, value in weights.items()}, base / "model.safetensors")
    assert fingerprint(mine) != before


@pytest.fixture
def described(family: Family, tmp_path: Path) -> Path:
    """An adapter folder with a description and empty weights."""
    folder = tmp_path / "described"
    folder.mkdir()
    settings = {"peft_type": "LORA", "base_model_name_or_path": str(family("bert")), "r": 4}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    save_file({}, folder / "adapter_model.safetensors")
    return folder


def test_an_adapter_without_peft_names_the_extra(
    described: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    edit_json(described / "adapter_config.json", base_model_name_or_path="some/where")
    message = refused(described, MissingExtraError)
    assert message.startswith(f"{described}, a PEFT adapter, needs an optional package")
    assert message.endswith("pip install 'simcse-kit[peft]'")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "PROMPT_TUNING"}, "peft_type is 'PROMPT_TUNING'; supported: LORA, ADA"),
        ({"peft_type": ["LORA"]}, r"peft_type is ['LORA']; supported"),
        ({"peft_type": None}, "peft_type is None; supported"),
        ({"base_model_name_or_path": None}, "base_model_name_or_path is None; write the name"),
        ({"base_model_name_or_path": 5}, "base_model_name_or_path is 5; write"),
    ],
)
def test_wrong_descriptions_are_refused(
    described: Path, changes: dict[str, Any], message: str
) -> None:
    edit_json(described / "adapter_config.json", **changes)
    assert message in refused(described)


def test_pickled_weights_are_refused(described: Path) -> None:
    (described / "adapter_model.safetensors").rename(described / "adapter_model.bin")
    assert "has no adapter_model.safetensors; adapters with pickled weights" in refused(described)


@with_peft
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_model_name_or_path": "./nowhere"}, "which cannot be opened: no such model folder"),
        ({"base_model_name_or_path": "some/where"}, "could not be fetched from the Hugging Face"),
        ({"revision": 5}, "revision is 5, not text"),
        ({"r": 0}, "cannot be merged into"),
        ({"target_modules": ["nowhere"]}, "cannot be merged into"),
        ({"target_modules": ["query"]}, "weights do not fit"),
        ({"later_setting": 3}, "Unexpected keyword arguments ['later_setting']"),
    ],
)
def test_adapters_that_cannot_be_merged_are_refused(
    adapter: Any, copy: Copy, changes: dict[str, Any], message: str
) -> None:
    folder = copy(adapter()[0])
    edit_json(folder / "adapter_config.json", **changes)
    assert message in refused(folder)


@with_peft
def test_damaged_weights_are_refused(adapter: Any, copy: Copy) -> None:
    folder = copy(adapter()[0])
    path = folder / "adapter_model.safetensors"
    good = load_file(path)
    first = next(iter(good))
    changes: list[tuple[dict[str, torch.Tensor], str]] = [
        ({}, "weights do not fit; the first, "),
        (good | {"base_model.model.extra.weight": torch.ones(2)}, "has no place in the model"),
        (good | {first: good[first][:, :-1].contiguous()}, "size mismatch"),
        (good | {first: torch.full_like(good[first], torch.nan)}, "NaN"),
    ]
    for weights, message in changes:
        save_file(weights, path)
        assert message in refused(folder)
    path.write_bytes(path.read_bytes()[:50])
    assert "cannot be read" in refused(folder)
    # Of a pooler only the pooling that uses it has to know.
    pooler = {f"base_model.model.pooler.dense.lora_{x}.weight": torch.ones(4, 32) for x in "AB"}
    save_file(good | pooler, path)
    assert SentenceEncoder.load(folder).pooling == "mean"
    assert "changes the pooler of its model" in refused(folder, pooling="pooler")
    # An adapter of an adapter.
    edit_json(folder / "adapter_config.json", base_model_name_or_path=str(folder))
    assert "which is an adapter too" in refused(folder)
