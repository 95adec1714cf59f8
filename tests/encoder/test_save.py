"""Saved folders give equal vectors here, in sentence-transformers and with AutoModel."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from simcse_kit.encoder.dense import ACTIVATIONS, Dense
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.folder import save
from simcse_kit.encoder.pooling import POOLINGS
from simcse_kit.errors import ConfigError, ModelError
from tests.encoder.conftest import SENTENCES, edit_json, naive

Family = Callable[[str], Path]
TEXTS = [*SENTENCES, "A Cat " * 40]


def check_everywhere(encoder: SentenceEncoder, folder: Path) -> np.ndarray:
    """Check that the saved folder gives equal vectors here and in sentence-transformers."""
    from sentence_transformers import SentenceTransformer

    ours = encoder.encode(TEXTS)
    encoder.save(folder)
    np.testing.assert_array_equal(encoder.encode(TEXTS), ours)  # saving changes nothing
    again = SentenceEncoder.load(folder)
    np.testing.assert_allclose(again.encode(TEXTS), ours, atol=1e-6)
    assert (again.normalize, again.max_length) == (encoder.normalize, encoder.max_length)
    theirs = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(theirs, ours, atol=1e-5)
    suffixes = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert suffixes == {".json", ".safetensors", ".md"}
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    return ours


# `mask` needs a template, which sentence-transformers has no place for: see test_template.py.
@pytest.mark.long
@pytest.mark.parametrize("pooling", [name for name in POOLINGS if name != "mask"])
def test_every_pooling_survives_saving(family: Family, tmp_path: Path, pooling: str) -> None:
    encoder = SentenceEncoder.load(family("bert"), pooling=pooling, max_length=12)
    ours = check_everywhere(encoder, tmp_path / "saved")
    plain = naive(tmp_path / "saved", pooling, TEXTS, 12).numpy()
    np.testing.assert_allclose(plain, ours, atol=1e-5)


@pytest.mark.parametrize("name", ["roberta", "distilbert", "mpnet", "albert", "modernbert"])
def test_every_family_survives_saving(family: Family, tmp_path: Path, name: str) -> None:
    encoder = SentenceEncoder.load(family(name), pooling="cls_before_pooler")
    torch.manual_seed(0)
    encoder.set_head(Dense(32, 32))
    assert encoder.pooling == "cls"
    ours = check_everywhere(encoder, tmp_path / "saved")
    if name in ("roberta", "mpnet", "albert"):  # those with a pooler
        plain = naive(tmp_path / "saved", "pooler", TEXTS).numpy()
        np.testing.assert_allclose(plain, ours, atol=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_dense_stages_survive_saving(family: Family, tmp_path: Path, activation: str) -> None:
    encoder = SentenceEncoder.load(family("bert"))
    encoder.head = torch.nn.Sequential(
        Dense(32, 24, activation=activation), Dense(24, 16, bias=False, activation="identity")
    )
    encoder.normalize = True
    ours = check_everywhere(encoder, tmp_path / "saved")
    assert ours.shape == (len(TEXTS), 16)
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)


def test_lowercase_and_prompt_survive_saving(family: Family, tmp_path: Path) -> None:
    encoder = SentenceEncoder.load(family("bert"), pooling="last_token")
    encoder.tokenizer.backend_tokenizer.normalizer = None
    before = encoder.encode("A Cat")
    encoder.lowercase, encoder.prompt = True, "The dog : "
    assert not np.allclose(before, encoder.encode("A Cat"))
    check_everywhere(encoder, tmp_path / "saved")
    again = SentenceEncoder.load(tmp_path / "saved")
    assert (again.lowercase, again.prompt) == (True, "The dog : ")


def test_one_layer(tmp_path: Path, family: Family, tiny_encoder_dir: Path) -> None:
    """The last two of its states are the embeddings and the output of the layer."""
    from transformers import BertConfig, BertModel

    config = BertConfig.from_pretrained(family("bert"), num_hidden_layers=1)
    BertModel(config).save_pretrained(tmp_path / "one")
    for path in tiny_encoder_dir.glob("tokenizer*"):
        shutil.copy(path, tmp_path / "one")
    for pooling in ("last_two_mean", "first_last_mean"):
        encoder = SentenceEncoder.load(tmp_path / "one", pooling=pooling)
        check_everywhere(encoder, tmp_path / pooling / "saved")


def test_tied_weights_can_be_saved(family: Family, tmp_path: Path) -> None:
    """safetensors cannot write two names of one storage."""
    encoder = SentenceEncoder.load(family("albert"))
    inner = encoder.backbone.encoder.albert_layer_groups[0].albert_layers[0]
    inner.attention.key = inner.attention.query
    with torch.no_grad():
        inner.attention.query.weight.mul_(1.5)
    encoder.save(tmp_path / "saved")
    weights = load_file(tmp_path / "saved" / "model.safetensors")
    prefix = "encoder.albert_layer_groups.0.albert_layers.0.attention"
    assert torch.equal(weights[f"{prefix}.key.weight"], weights[f"{prefix}.query.weight"])
    again = SentenceEncoder.load(tmp_path / "saved")
    np.testing.assert_allclose(again.encode(TEXTS), encoder.encode(TEXTS), atol=1e-6)


def test_after_training(family: Family, tmp_path: Path) -> None:
    encoder = SentenceEncoder.load(family("bert"), pooling="cls")
    before = encoder.encode(TEXTS)
    encoder.train()
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1)
    encoder(torch.tensor([[2, 5, 6, 3]]), torch.ones(1, 4)).square().sum().backward()
    optimizer.step()
    after = check_everywhere(encoder, tmp_path / "saved")
    assert np.abs(after - before).max() > 1e-3
    assert encoder.training


def test_same_bytes_before_and_after_encoding(family: Family, tmp_path: Path) -> None:
    encoder = SentenceEncoder.load(family("bert"))
    encoder.save(tmp_path / "before")
    encoder.encode(TEXTS, max_length=7)
    encoder.save(tmp_path / "after")
    for path in (tmp_path / "before").rglob("*.*"):
        if path.is_file():
            other = tmp_path / "after" / path.relative_to(tmp_path / "before")
            assert other.read_bytes() == path.read_bytes(), path.name


def test_card(family: Family, tmp_path: Path) -> None:
    encoder = SentenceEncoder.load(family("bert"))
    encoder.save(tmp_path / "a")
    assert "32-dimensional" in (tmp_path / "a" / "README.md").read_text(encoding="utf-8")
    encoder.save(tmp_path / "b", card="# Müller\n")
    assert (tmp_path / "b" / "README.md").read_text(encoding="utf-8") == "# Müller\n"


# ---------------------------------------------------------------- replacing an existing folder


def test_over_an_existing_folder(family: Family, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    old = SentenceEncoder.load(family("bert"), pooling="first_last_mean")
    old.head = torch.nn.Sequential(Dense(32, 16))
    old.prompt, old.normalize = "the dog", True
    old.save(folder)
    (folder / "run.toml").write_text("seed = 1\n", encoding="utf-8")
    (folder / "checkpoints").mkdir()
    # left by other tools, and read along with the new files if they stayed
    edit_json(folder / "model.safetensors.index.json", weight_map={"mlp.dense.weight": "x"})
    edit_json(folder / "added_tokens.json", zebra=46)
    edit_json(folder / "sentence_albert_config.json", max_seq_length=4)
    new = SentenceEncoder.load(family("mpnet"))
    new.save(folder)
    again = SentenceEncoder.load(folder)
    assert (again.prompt, again.head, again.normalize, again.max_length) == ("", None, False, 32)
    np.testing.assert_allclose(again.encode(TEXTS), new.encode(TEXTS), atol=1e-6)
    assert (folder / "run.toml").read_text(encoding="utf-8") == "seed = 1\n"
    assert (folder / "checkpoints").is_dir()
    assert not (folder / "added_tokens.json").exists()
    assert not [path.name for path in folder.iterdir() if "saving" in path.name]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_over_its_own_source(family: Family, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(family("bert"), tmp_path / "own"))
    encoder = SentenceEncoder.load(folder)
    with torch.no_grad():
        encoder.backbone.embeddings.word_embeddings.weight.mul_(1.1)
    expected = encoder.encode(TEXTS)
    encoder.save(folder)
    np.testing.assert_allclose(SentenceEncoder.load(folder).encode(TEXTS), expected, atol=1e-6)


def nest(folder: Path) -> None:
    """Put the transformer of a saved folder into a subfolder, as old versions did."""
    (folder / "0_Transformer").mkdir()
    for path in folder.iterdir():
        if path.is_file() and path.name not in ("modules.json", "README.md"):
            path.rename(folder / "0_Transformer" / path.name)
    modules = (folder / "modules.json").read_text(encoding="utf-8")
    modules = modules.replace('"path": ""', '"path": "0_Transformer"')
    (folder / "modules.json").write_text(modules, encoding="utf-8")


@pytest.mark.parametrize("nested", [False, True])
def test_interrupted_at_every_step(
    family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nested: bool
) -> None:
    """After an interrupt the folder holds the old model, or is refused."""
    text = "a cat sat on the mat ."
    encoder = SentenceEncoder.load(family("bert"), pooling="max")
    encoder.save(tmp_path / "old")
    old = encoder.encode(text)
    if nested:
        nest(tmp_path / "old")
    encoder.pooling = "cls_before_pooler"
    new = encoder.encode(text)
    real = {name: getattr(Path, name) for name in ("replace", "unlink")}
    outcomes: list[str] = []
    while "done" not in outcomes:
        folder = Path(shutil.copytree(tmp_path / "old", tmp_path / f"out-{len(outcomes)}"))
        left = len(outcomes)

        def step(name: str, path: Path, *args: Any, **kwargs: Any) -> Any:
            nonlocal left
            if path.is_relative_to(folder):  # noqa: B023
                if left == 0:
                    raise OSError(28, "No space left on device")
                left -= 1
            return real[name](path, *args, **kwargs)

        with monkeypatch.context() as patch:
            for name in real:
                patch.setattr(
                    Path, name, lambda path, *a, _name=name, **k: step(_name, path, *a, **k)
                )
            try:
                encoder.save(folder)
            except ModelError as error:
                message = str(error)
            else:
                message = ""
        assert not list(folder.glob(".*"))
        if not message:
            np.testing.assert_allclose(SentenceEncoder.load(folder).encode(text), new, atol=1e-6)
            outcomes.append("done")
            continue
        assert message == f"{folder} cannot be written: No space left on device"
        try:
            found = SentenceEncoder.load(folder).encode(text)
        except ModelError:
            outcomes.append("refused")
        else:
            np.testing.assert_allclose(found, old, atol=1e-6)
            outcomes.append("old")
    assert outcomes.count("refused") > 5
    assert outcomes[0] == "old"


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_failing_while_writing(
    family: Family,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    exists: bool,
    error: BaseException,
) -> None:
    encoder = SentenceEncoder.load(family("bert"))
    folder = tmp_path / "out"
    if exists:
        encoder.save(folder)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(save, "default_card", fail)  # the last thing written
    expected = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else ModelError
    with pytest.raises(expected):
        encoder.save(folder)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*.*") if p.is_file()} == before
    assert folder.exists() is exists


@pytest.mark.skipif(sys.platform == "win32", reason="no flock")
@pytest.mark.parametrize("exists", [False, True])
def test_two_processes_that_save_to_one_folder_do_not_mix(
    family: Family, tmp_path: Path, exists: bool
) -> None:
    encoder = SentenceEncoder.load(family("bert"))
    folder = tmp_path / "out"
    if exists:
        encoder.save(folder)
    with save.staged_folder(folder) as staging:
        for name in ("modules.json", "config.json"):
            (staging / name).write_text("{}")
        with pytest.raises(ConfigError, match=r"writes .*out at this time; wait"):
            encoder.save(folder)
        assert staging.is_dir()
    assert (folder / "config.json").read_text() == "{}"
    encoder.save(folder)
    assert not list(tmp_path.rglob(".*"))


def test_unwritable_folders_are_refused(family: Family, tmp_path: Path) -> None:
    encoder = SentenceEncoder.load(family("bert"))
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    for target in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/none/model")):
        with pytest.raises(ModelError, match="cannot be written: ") as caught:
            encoder.save(target)
        assert "\n" not in str(caught.value)
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_leftovers_of_killed_processes_are_removed(bert: SentenceEncoder, tmp_path: Path) -> None:
    for home in (tmp_path, tmp_path / "model"):
        (home / ".model.saving-x1" / "1_Pooling").mkdir(parents=True)
    bert.save(tmp_path / "model")
    assert not list(tmp_path.rglob(".model.saving*"))
