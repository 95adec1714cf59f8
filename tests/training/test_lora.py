"""Training of LoRA adapters: what changes, what is saved, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ConfigError, MissingExtraError, ModelError
from tests.small_data import sentences
from tests.training.conftest import MakeConfig, Trained, train
from tests.training.test_resume import interrupt, outcome, timeless
from tests.training.test_run import same_weights

pytest.importorskip("peft", reason="peft is not installed")

TEXTS = sentences(40, seed=5)


def lora(**options: Any) -> dict[str, Any]:
    return {"model": {"lora": {"r": 4, **options}}, "training": {"learning_rate": 1e-2}}


def test_only_the_adapter_and_the_head_are_trained(
    make_config: MakeConfig, tiny_encoder_dir: Path, trained: Trained
) -> None:
    result = train(make_config(lora()), callbacks=[trained])
    assert result.improved
    backbone = trained.methods[0].encoder.backbone
    for name, weight in backbone.named_parameters():
        assert weight.requires_grad == ("lora_" in name)
    before = SentenceEncoder.load(tiny_encoder_dir, pooling="mean").backbone.state_dict()
    for name, weight in backbone.state_dict().items():
        if "lora_" not in name:
            assert torch.equal(weight, before[name.replace(".base_layer", "")])
    # The output folder has the adapter, and opens as the trained encoder.
    written = {path.name for path in result.output.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "modules.json"} <= written
    assert not {"model.safetensors", "config.json"} & written
    assert sum(
        w.numel() for w in load_file(result.output / "adapter_model.safetensors").values()
    ) < (0.1 * sum(w.numel() for w in before.values()))
    encoder = trained.methods[0].encoder.eval()
    np.testing.assert_allclose(result.encoder.encode(TEXTS), encoder.encode(TEXTS), atol=1e-5)
    start = SentenceEncoder.load(tiny_encoder_dir, pooling="mean")
    assert np.abs(start.encode(TEXTS) - encoder.encode(TEXTS)).max() > 1e-2


@pytest.mark.long
@pytest.mark.parametrize("pooling", ["mean", "cls_before_pooler", "first_last_mean"])
def test_adapter_folders_open_in_sentence_transformers(
    pooling: str, make_config: MakeConfig
) -> None:
    from sentence_transformers import SentenceTransformer

    result = train(make_config(lora(), {"model": {"pooling": pooling}}))
    theirs = SentenceTransformer(str(result.output), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(theirs, result.encoder.encode(TEXTS), atol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("targets", [None, "all-linear"])
def test_packed_vectors_equal_those_of_single_rows(
    targets: str | None, dropout: float, make_config: MakeConfig, trained: Trained
) -> None:
    train(make_config(lora(target_modules=targets, dropout=dropout)), callbacks=[trained])
    encoder = trained.methods[0].encoder.eval()
    assert encoder.packs
    rows, _ = encoder.tokenize(TEXTS)
    with torch.no_grad():
        alone = [encoder.backbone(torch.tensor([row])).last_hidden_state[0].mean(0) for row in rows]
    np.testing.assert_allclose(encoder.encode(TEXTS), torch.stack(alone).numpy(), atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("threads", [1, 2])
def test_gradients_equal_those_of_the_code_of_transformers(
    threads: int, make_config: MakeConfig, trained: Trained
) -> None:
    train(make_config(lora(target_modules="all-linear")), callbacks=[trained])
    encoder = trained.methods[0].encoder.eval()
    rows, _ = encoder.tokenize(TEXTS * 3)
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    mask = (ids != 0).long()
    weights = [weight for weight in encoder.backbone.parameters() if weight.requires_grad]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = torch.autograd.grad(encoder(ids, mask).square().sum(), weights)
    finally:
        torch.set_num_threads(before)
    states = encoder.backbone(input_ids=ids, attention_mask=mask).last_hidden_state
    pooled = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    expected = torch.autograd.grad(pooled.square().sum(), weights)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.long
def test_gradient_caching_trains_the_same_adapter(make_config: MakeConfig) -> None:
    still = {"method": {"dropout": 0.0}, "data": {"augment": "delete(0.2)"}}
    plain = train(make_config(lora(), still, name="plain"))
    cached = train(make_config(lora(), still, {"training": {"chunk_tokens": 32}}, name="cached"))
    weights = load_file(plain.output / "adapter_model.safetensors")
    for name, other in load_file(cached.output / "adapter_model.safetensors").items():
        torch.testing.assert_close(other, weights[name], rtol=1e-3, atol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_resumed_run_equals_an_uninterrupted_one(
    dropout: float, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(make_config(lora(dropout=dropout), name="whole"))
    config = make_config(lora(dropout=dropout), name="cut")
    interrupt(config, monkeypatch, share=10.5 / 12)
    cut = train(config, resume=True)
    assert outcome(cut) == outcome(whole)
    assert timeless(cut.output) == timeless(whole.output)
    for file in ("adapter_model.safetensors", "checkpoints/checkpoint-12/model.safetensors"):
        assert same_weights(cut.output / file, whole.output / file)


@pytest.mark.long
def test_the_merged_encoder_has_the_same_vectors_without_peft(make_config: MakeConfig) -> None:
    result = train(make_config(lora(), {"training": {"merge_adapter": True}}))
    merged = result.output / "merged"
    assert (merged / "model.safetensors").exists()
    assert not (merged / "adapter_config.json").exists()
    np.testing.assert_allclose(
        SentenceEncoder.load(merged).encode(TEXTS), result.encoder.encode(TEXTS), atol=1e-6
    )


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("texts", {"name": "simcse", "mlm_weight": 0.1}),
        ("texts", {"name": "moco"}),
        ("texts", {"name": "byol"}),
        ("triplets", {"name": "dual_encoder"}),
        ("texts", {"name": "promptbert"}),
    ],
)
def test_methods_with_further_networks_train_adapters(
    kind: str, method: dict[str, Any], make_config: MakeConfig
) -> None:
    own = {"model": {"pooling": None}} if method["name"] == "promptbert" else {}
    result = train(make_config(lora(), {"method": method}, own, kind=kind))
    assert np.isfinite(result.encoder.encode(TEXTS)).all()


@pytest.mark.long
def test_frozen_layers_keep_their_adapter_unchanged(make_config: MakeConfig) -> None:
    result = train(make_config(lora(), {"training": {"freeze": ["layers.0"]}}))
    weights = load_file(result.output / "adapter_model.safetensors")
    changed = {name for name, weight in weights.items() if "lora_B" in name and weight.any()}
    assert changed
    assert not [name for name in changed if ".layer.0." in name]


@pytest.mark.long
def test_layers_can_be_recomputed(make_config: MakeConfig) -> None:
    options = {"trainer": {"gradient_checkpointing": True}}
    result = train(make_config(lora(), options))
    weights = load_file(result.output / "adapter_model.safetensors")
    assert all(weight.any() for name, weight in weights.items())


@pytest.mark.long
def test_a_folder_is_replaced_by_an_adapter_and_back(
    make_config: MakeConfig, tiny_encoder_dir: Path
) -> None:
    result = train(make_config(lora()))
    folder = result.output
    SentenceEncoder.load(tiny_encoder_dir, pooling="mean").save(folder)
    assert not (folder / "adapter_config.json").exists()
    assert not (folder / "adapter_model.safetensors").exists()
    again = train(make_config(lora(), {"training": {"merge_adapter": True}}), overwrite=True)
    assert not (again.output / "model.safetensors").exists()
    whole = train(make_config(), overwrite=True)
    left = {"adapter_config.json", "adapter_model.safetensors", "adapter_base.json", "merged"}
    assert not left & {path.name for path in whole.output.iterdir()}
    assert np.isfinite(whole.encoder.encode(TEXTS)).all()


def test_the_adapter_names_its_model(make_config: MakeConfig, tiny_encoder_dir: Path) -> None:
    result = train(make_config(lora()))
    settings = json.loads((result.output / "adapter_config.json").read_text(encoding="utf-8"))
    assert settings["base_model_name_or_path"] == str(tiny_encoder_dir.resolve())


def test_wrong_settings_are_refused(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"target_modules = \['nowhere'\] does not fit a bert"):
        train(make_config(lora(target_modules=["nowhere"])))
    with pytest.raises(ConfigError, match=r"merges the adapter of model\.lora, and none is set"):
        train(make_config({"training": {"merge_adapter": True}}))
    with pytest.raises(ConfigError, match=r"keep_layers = \[0\] and model\.lora: an adapter is"):
        train(make_config(lora(), {"model": {"keep_layers": [0]}}))
    result = train(make_config(lora()))
    with pytest.raises(ConfigError, match="is an adapter itself; merge it into its model with"):
        train(make_config(lora(), {"model": {"name": str(result.output)}}, name="second"))
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(MissingExtraError, match=r"model\.lora needs an optional package; install"):
        train(make_config(lora(), name="third"))


def test_an_adapter_of_another_model_is_refused(
    make_config: MakeConfig, tiny_encoder_dir: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(tiny_encoder_dir, tmp_path / "base"))
    result = train(make_config(lora(), {"model": {"name": str(base)}}))
    # Of the same shapes.
    weights = load_file(base / "model.safetensors")
    save_file({name: 2 * weight for name, weight in weights.items()}, base / "model.safetensors")
    with pytest.raises(
        ModelError, match="is an adapter of another model: the weights in"
    ) as caught:
        SentenceEncoder.load(result.output)
    assert "\n" not in str(caught.value)
    # Of other shapes, and saved by peft.
    (result.output / "adapter_base.json").unlink()
    path = result.output / "adapter_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(settings | {"base_model_name_or_path": "mini"}), encoding="utf-8")
    with pytest.raises(ModelError, match=r"cannot be merged into .*: ") as caught:
        SentenceEncoder.load(result.output)
    assert "\n" not in str(caught.value)
