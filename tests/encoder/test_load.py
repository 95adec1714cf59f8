"""Loading: supported folders, their recipes, and refusals in one line."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ConfigError, ModelError
from tests.encoder.conftest import FAMILIES, SENTENCES, edit_json, naive

Copy = Callable[[Path], Path]
Family = Callable[[str], Path]
Checkpoint = Callable[..., Path]

pytestmark = pytest.mark.usefixtures("no_pickle")


def refused(folder: Any, **arguments: Any) -> str:
    with pytest.raises(ModelError) as caught:
        SentenceEncoder.load(folder, **arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


# ---------------------------------------------------------------- plain models


@pytest.mark.long
@pytest.mark.parametrize("name", FAMILIES)
def test_families_load_with_their_vectors(
    family: Family, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "simcse_kit")
    encoder = SentenceEncoder.load(family(name))
    assert [record.message for record in caplog.records] == [
        f"{family(name)} has no pooling recipe; using 'mean'"
    ]
    assert (encoder.pooling, encoder.head, encoder.normalize) == ("mean", None, False)
    assert (encoder.embedding_dim, encoder.max_length) == (32, 32)
    assert not encoder.training
    # at the greatest length too: RoBERTa and MPNet count positions from padding_idx + 1
    texts = [*SENTENCES, "a " * 60]
    np.testing.assert_allclose(
        encoder.encode(texts), naive(family(name), "mean", texts).numpy(), atol=1e-5
    )


def test_max_length_is_limited_by_the_positions(family: Family) -> None:
    limits = {
        name: SentenceEncoder.load(family(name), max_length=38).max_length
        for name in ("bert", "mpnet")
    }
    assert limits == {"bert": 38, "mpnet": 38}
    encoder = SentenceEncoder.load(family("mpnet"))
    assert encoder.encode("a " * 60, max_length=38).shape == (32,)
    with pytest.raises(ConfigError, match=r"max_length is 39; .* at most 38"):
        SentenceEncoder.load(family("mpnet"), max_length=39)
    assert SentenceEncoder.load(family("bert"), max_length=40).max_length == 40
    for wrong in (41, 2, 0, -1, True, 3.5, "8"):
        with pytest.raises(ConfigError, match=f"max_length is {wrong!r}"):
            SentenceEncoder.load(family("bert"), max_length=wrong)  # type: ignore[arg-type]


def test_mini_loads() -> None:
    encoder = SentenceEncoder.load("mini")
    assert encoder.encode("A cat.").shape == (256,)


def test_a_causal_model_loads(tiny_encoder_dir: Path, tmp_path: Path) -> None:
    from tokenizers import processors
    from transformers import GPT2Config, GPT2Model, PreTrainedTokenizerFast

    config = GPT2Config(vocab_size=47, n_positions=40, n_embd=32, n_layer=2, n_head=2)
    GPT2Model(config).save_pretrained(tmp_path)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny_encoder_dir)
    tokenizer.backend_tokenizer.post_processor = processors.Sequence([])
    tokenizer.pad_token, tokenizer.eos_token = None, "[SEP]"
    tokenizer.save_pretrained(tmp_path)
    encoder = SentenceEncoder.load(tmp_path, pooling="last_token")
    assert encoder.tokenizer.pad_token_id == 3
    alone = np.stack([encoder.encode(text) for text in SENTENCES])
    np.testing.assert_allclose(encoder.encode(SENTENCES), alone, atol=1e-5)
    assert np.isfinite(alone).all()  # "" has no token at all here
    with pytest.raises(ModelError, match=r"the model only 47 emb|no masked-LM|Unrecognized"):
        encoder.masked_lm()


# ---------------------------------------------------------------- SimCSE checkpoints


@pytest.mark.parametrize("name", ["bert", "roberta"])
@pytest.mark.parametrize("extras", [False, True])
def test_simcse_checkpoints_as_trained_load_their_mlp(
    simcse_checkpoint: Checkpoint,
    family: Family,
    name: str,
    extras: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "simcse_kit")
    folder = simcse_checkpoint(name, extras=extras)
    encoder = SentenceEncoder.load(folder)
    assert encoder.pooling == "cls"
    assert "using 'cls' with its MLP head" in caplog.text
    first = naive(family(name), "cls_before_pooler", SENTENCES)
    weights = load_file(folder / "model.safetensors")
    expected = torch.tanh(first @ weights["mlp.dense.weight"].T + weights["mlp.dense.bias"])
    np.testing.assert_allclose(encoder.encode(SENTENCES), expected.numpy(), atol=1e-5)
    plain = SentenceEncoder.load(folder, pooling="cls_before_pooler")
    assert plain.head is None
    np.testing.assert_allclose(plain.encode(SENTENCES), first.numpy(), atol=1e-5)


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_converted_simcse_checkpoints_load_their_pooler(
    simcse_checkpoint: Checkpoint, name: str
) -> None:
    folder = simcse_checkpoint(name, converted=True)
    expected = naive(folder, "pooler", SENTENCES).numpy()
    for pooling in ("cls", "pooler"):
        encoder = SentenceEncoder.load(folder, pooling=pooling)
        np.testing.assert_allclose(encoder.encode(SENTENCES), expected, atol=1e-5)
    # nothing in the folder tells it from a BERT, and its name (unsup-simcse) must not
    assert SentenceEncoder.load(folder).pooling == "mean"


def test_the_name_of_a_folder_does_not_matter(
    simcse_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    for name in ("sup-simcse-roberta", "plain"):
        folder = Path(shutil.copytree(simcse_checkpoint("bert"), tmp_path / name))
        assert SentenceEncoder.load(folder).pooling == "cls"


def test_pooler_and_mlp_side_by_side(simcse_checkpoint: Checkpoint, copy: Copy) -> None:
    folder = copy(simcse_checkpoint("bert"))
    weights = load_file(folder / "model.safetensors")
    weights |= {"bert.pooler.dense.weight": torch.eye(32), "bert.pooler.dense.bias": torch.ones(32)}
    save_file(weights, folder / "model.safetensors")
    first = SentenceEncoder.load(folder, pooling="cls_before_pooler").encode("a cat")
    own = SentenceEncoder.load(folder, pooling="pooler").encode("a cat")
    np.testing.assert_allclose(own, np.tanh(first + 1), atol=1e-5)
    assert not np.allclose(SentenceEncoder.load(folder, pooling="cls").encode("a cat"), own)


def test_albert_pooler(family: Family) -> None:
    encoder = SentenceEncoder.load(family("albert"), pooling="pooler")
    expected = naive(family("albert"), "pooler", SENTENCES)
    np.testing.assert_allclose(encoder.encode(SENTENCES), expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("pooling", ["cls", "pooler"])
def test_head_without_weights(family: Family, tiny_encoder_dir: Path, pooling: str) -> None:
    for folder in (family("distilbert"), tiny_encoder_dir):
        assert f"pooling '{pooling}' needs a head" in refused(folder, pooling=pooling)


# ---------------------------------------------------------------- sentence-transformers folders


@pytest.fixture(scope="module")
def st_folder(
    family: Family, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[Path, Any]]:
    """A folder saved by sentence-transformers itself, and its model."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    def make(mode: str, *after: Any, before: tuple[Any, ...] = ()) -> tuple[Path, Any]:
        folder = tmp_path_factory.mktemp("st")
        transformer = Transformer(str(family("bert")))
        if before:
            transformer.model.config.output_hidden_states = True
        modules = [transformer, *before, Pooling(32, pooling_mode=mode), *after]
        model = SentenceTransformer(modules=modules, device="cpu")
        with pytest.MonkeyPatch.context() as patch:  # a card asks the Hub and git
            patch.setattr(SentenceTransformer, "_create_model_card", lambda *_, **__: None)
            model.save(str(folder))
        return folder, model

    return make


@pytest.mark.parametrize(
    ("mode", "pooling"),
    [
        ("cls", "cls_before_pooler"),
        ("mean", "mean"),
        ("max", "max"),
        ("lasttoken", "last_token"),
    ],
)
def test_sentence_transformers_poolings_are_equal(st_folder: Any, mode: str, pooling: str) -> None:
    folder, model = st_folder(mode)
    encoder = SentenceEncoder.load(folder)
    assert encoder.pooling == pooling
    np.testing.assert_allclose(encoder.encode(SENTENCES), model.encode(SENTENCES), atol=1e-5)


def test_sentence_transformers_stages_are_equal(st_folder: Any) -> None:
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize

    stages = [
        Dense(32, 24, activation_function=nn.GELU()),
        Dense(24, 16, bias=False, activation_function=None),
        Normalize(),
    ]
    folder, model = st_folder("mean", *stages)
    encoder = SentenceEncoder.load(folder)
    assert (encoder.embedding_dim, encoder.normalize) == (16, True)
    np.testing.assert_allclose(encoder.encode(SENTENCES), model.encode(SENTENCES), atol=1e-5)
    folder, model = st_folder("cls", Dense(32, 32))  # tanh: the head of SimCSE
    encoder = SentenceEncoder.load(folder)
    assert encoder.pooling == "cls"
    np.testing.assert_allclose(encoder.encode(SENTENCES), model.encode(SENTENCES), atol=1e-5)


@pytest.mark.parametrize(
    ("start", "weights", "pooling"),
    [
        (1, [1.0, 0.0, 1.0], "first_last_mean"),
        (0, [0.0, 3.0, 0.0, 3.0], "first_last_mean"),
        (2, [0.5, 0.5], "last_two_mean"),
        (0, [1.0, 0.0, 0.0, 1.0], None),  # with the embedding layer: not our first layer
        (1, [1.0, 1.0, 1.0], None),
    ],
)
def test_layer_pooling(
    st_folder: Any, start: int, weights: list[float], pooling: str | None
) -> None:
    from sentence_transformers.sentence_transformer.modules import WeightedLayerPooling

    layers = WeightedLayerPooling(32, 3, start, nn.Parameter(torch.tensor(weights)))
    folder, model = st_folder("mean", before=(layers,))
    if pooling is None:
        assert "are not supported; supported: first_last_mean, last_two_mean" in refused(folder)
        return
    encoder = SentenceEncoder.load(folder)
    assert encoder.pooling == pooling
    np.testing.assert_allclose(encoder.encode(SENTENCES), model.encode(SENTENCES), atol=1e-5)


@pytest.fixture
def legacy(family: Family, tmp_path: Path) -> Path:
    """The layout of sentence-transformers 0.x to 4: transformer in a subfolder, old key names."""
    root = tmp_path / "legacy"
    shutil.copytree(family("roberta"), root / "0_Transformer")
    edit_json(
        root / "0_Transformer" / "sentence_roberta_config.json",
        max_seq_length=6,
        do_lower_case=True,
    )
    (root / "1_Pooling").mkdir()
    edit_json(
        root / "1_Pooling" / "config.json",
        word_embedding_dimension=32,
        pooling_mode_cls_token=False,
        pooling_mode_mean_tokens=False,
        pooling_mode_max_tokens=True,
        pooling_mode_mean_sqrt_len_tokens=False,
    )
    edit_json(
        root / "config_sentence_transformers.json",
        prompts={"query": "A cat", "other": "dog"},
        default_prompt_name="query",
    )
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (path, kind) in enumerate(
            [("0_Transformer", "Transformer"), ("1_Pooling", "Pooling"), ("2_N", "Normalize")]
        )
    ]
    (root / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    return root


def test_legacy_keys(legacy: Path) -> None:
    encoder = SentenceEncoder.load(legacy)
    assert (encoder.pooling, encoder.normalize, encoder.max_length) == ("max", True, 6)
    assert encoder.lowercase
    texts = ["a cat sat on the mat near a house", "Music"]
    expected = naive(legacy / "0_Transformer", "max", [f"a cat{t.lower()}" for t in texts], 6)
    expected = nn.functional.normalize(expected, dim=1)
    np.testing.assert_allclose(encoder.encode(texts), expected.numpy(), atol=1e-5)
    assert SentenceEncoder.load(legacy, max_length=12).max_length == 12


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": False}, "pooling \\[\\] is not"),
        ("1_Pooling/config.json", {"pooling_mode": ["mean", "median"]}, r"'median'\] is not"),
        ("2_N/config.json", {"module_input_name": "token_embeddings"}, "module_input_name"),
        ("0_Transformer/sentence_roberta_config.json", {"max_seq_length": 40}, "at most 39"),
        ("0_Transformer/sentence_roberta_config.json", {"max_seq_length": "x"}, "max_length is 'x"),
        (
            "0_Transformer/sentence_roberta_config.json",
            {"transformer_task": "fill-mask"},
            "'fill-mask' is not supported",
        ),
        ("config_sentence_transformers.json", {"default_prompt_name": "x"}, "'x' is not among"),
    ],
)
def test_unsupported_options_are_refused(
    legacy: Path, file: str, changes: Any, message: str
) -> None:
    (legacy / "2_N").mkdir()
    edit_json(legacy / file, **changes)
    with pytest.raises(ModelError, match=message):
        SentenceEncoder.load(legacy)


@pytest.mark.parametrize(
    ("place", "changes", "message"),
    [
        (1, {"path": "../x"}, "path '../x' leads out of the folder"),
        (0, {"path": "0_Transformer/../../x"}, "leads out of the folder"),
        (1, {"path": "/tmp"}, "path '/tmp' leads out of the folder"),
        (1, {"type": "custom_st.Pooling"}, "module 'custom_st.Pooling' is not supported"),
        (1, {"type": "sentence_transformers.models.LSTM"}, "models.LSTM' is not supported"),
        (2, {"type": "sentence_transformers.models.Pooling"}, "Pooling cannot follow Pooling"),
        (
            0,
            {"type": "sentence_transformers.models.Normalize"},
            "Normalize cannot come first; a Transformer or StaticEmbedding must",
        ),
        (1, {"type": "sentence_transformers.models.Dropout"}, "names no Pooling module"),
    ],
)
def test_unsupported_modules_are_refused(
    legacy: Path, place: int, changes: Any, message: str
) -> None:
    path = legacy / "modules.json"
    modules = json.loads(path.read_text(encoding="utf-8"))
    modules[place] |= changes
    path.write_text(json.dumps(modules), encoding="utf-8")
    assert message in refused(legacy)


def test_foreign_dense(st_folder: Any) -> None:
    from sentence_transformers.sentence_transformer.modules import Dense

    folder, _ = st_folder("mean", Dense(32, 32))
    config = folder / "2_Dense" / "config.json"
    edit_json(config, activation_function="evil.module.Tanh")
    assert "activation 'evil.module.Tanh' is not supported" in refused(folder)
    edit_json(config, activation_function="torch.nn.modules.activation.PReLU")
    assert "supported: gelu, identity, relu" in refused(folder)
    edit_json(config, activation_function="torch.nn.modules.activation.Tanh", use_residual=True)
    assert "use_residual" in refused(folder)
    edit_json(config, use_residual=None)
    save_file({"linear.weight": torch.ones(8, 16)}, folder / "2_Dense" / "model.safetensors")
    assert "lacks the weights of its Dense stage" in refused(folder)
    edit_json(config, bias=False)
    assert "takes 16 dimensions but is given 32" in refused(folder)
    (folder / "2_Dense" / "model.safetensors").rename(folder / "2_Dense" / "pytorch_model.bin")
    assert "lacks the weights of its Dense stage" in refused(folder)


# ---------------------------------------------------------------- damaged, unsafe or absent


def test_a_missing_layer_is_refused(family: Family, copy: Copy) -> None:
    folder = copy(family("bert"))
    # Copies, because the file is rewritten: safetensors 0.5 leaves them in it.
    weights = {n: w.clone() for n, w in load_file(folder / "model.safetensors").items()}
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors")
    assert "lacks 1 weights of its architecture, encoder.layer.1.output.dense" in refused(folder)
    weights["encoder.layer.1.output.dense.weight"] = torch.ones(5, 5)
    save_file(weights, folder / "model.safetensors")
    refused(folder)
    save_file({"something": torch.ones(1)}, folder / "model.safetensors")
    assert "lacks" in refused(folder)


def test_pickled_weights_are_refused(
    family: Family, copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy(family("bert"))
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    message = refused(folder)
    assert "pytorch_model.bin), which can run code" in message
    # the remedy in the message does work
    remedy = message.partition('python -c "')[2].rpartition('"')[0]
    monkeypatch.undo()
    torch.save(weights, folder / "pytorch_model.bin")
    monkeypatch.chdir(folder)
    exec(remedy, {})
    assert SentenceEncoder.load(folder).encode("a cat").shape == (32,)


def test_an_index_that_names_a_pickle_is_refused(family: Family, copy: Copy) -> None:
    folder = copy(family("bert"))
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    index = folder / "model.safetensors.index.json"
    edit_json(index, weight_map=dict.fromkeys(weights, "weights.bin"), metadata={})
    (folder / "weights.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    assert "'weights.bin' is not a safetensors file of this folder" in refused(folder)
    edit_json(index, weight_map=dict.fromkeys(weights, "../model.safetensors"))
    assert "'../model.safetensors' is not a safetensors file" in refused(folder)


def test_shards_in_the_layout_of_the_hub_cache(
    simcse_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """In that cache files are links to blobs outside the snapshot."""
    whole = simcse_checkpoint("bert")
    blobs, folder = tmp_path / "blobs", tmp_path / "snapshots" / "0"
    shutil.copytree(whole, blobs)
    weights = load_file(blobs / "model.safetensors")
    (blobs / "model.safetensors").unlink()
    keys = sorted(weights)
    names = {key: f"model-{1 + n % 2}.safetensors" for n, key in enumerate(keys)}
    for name in set(names.values()):
        save_file({k: weights[k] for k in keys if names[k] == name}, blobs / name, {"format": "pt"})
    edit_json(blobs / "model.safetensors.index.json", weight_map=names, metadata={})
    folder.mkdir(parents=True)
    for blob in blobs.iterdir():
        (folder / blob.name).symlink_to(os.path.relpath(blob, folder))
    encoder = SentenceEncoder.load(folder)
    assert encoder.pooling == "cls"
    expected = SentenceEncoder.load(whole).encode(SENTENCES)
    np.testing.assert_array_equal(encoder.encode(SENTENCES), expected)


def test_remote_code_is_refused(family: Family, copy: Copy) -> None:
    folder = copy(family("bert"))
    (folder / "evil.py").write_text("raise SystemExit('code of the folder ran')", encoding="utf-8")
    tokenizer = {"AutoTokenizer": ["evil.T", None]}
    edit_json(folder / "tokenizer_config.json", auto_map=tokenizer)
    assert "pass trust_remote_code=True" in refused(folder)
    edit_json(folder / "tokenizer_config.json", auto_map=None)
    edit_json(folder / "config.json", auto_map={"AutoModel": "evil.M"})
    assert "config.json asks for the model's own Python code" in refused(folder)
    edit_json(folder / "config.json", model_type="evil", auto_map={"AutoConfig": "evil.C"})
    assert "pass trust_remote_code=True" in refused(folder)


def test_trusted_remote_code_runs(
    family: Family, copy: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers.dynamic_module_utils as dynamic

    monkeypatch.setattr(dynamic, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = copy(family("bert"))
    (folder / "own.py").write_text(
        "from transformers import BertModel\nclass Own(BertModel):\n    mark = 'own'\n",
        encoding="utf-8",
    )
    edit_json(folder / "config.json", auto_map={"AutoModel": "own.Own"})
    encoder = SentenceEncoder.load(folder, trust_remote_code=True)
    assert encoder.backbone.mark == "own"


@pytest.mark.parametrize("content", ["", "{", "[]", '"x"', "[" * 100_000, "\x00"])
@pytest.mark.parametrize("name", ["config.json", "modules.json"])
def test_broken_json_is_refused(family: Family, copy: Copy, name: str, content: str) -> None:
    folder = copy(family("bert"))
    (folder / name).write_text(content, encoding="utf-8")
    message = refused(folder)
    assert str(folder) in message
    assert len(message) < 600


def test_json_that_is_not_utf8_is_refused(family: Family, copy: Copy) -> None:
    folder = copy(family("bert"))
    (folder / "config.json").write_bytes(b'{"model_type": "\xff"}')
    assert "config.json cannot be read" in refused(folder)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_weights_are_refused(family: Family, copy: Copy, share: float) -> None:
    folder = copy(family("bert"))
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    refused(folder)
    refused(folder, pooling="pooler")


def test_a_tokenizer_larger_than_the_vocabulary_is_refused(family: Family, copy: Copy) -> None:
    folder = copy(family("bert"))
    tokenizer = SentenceEncoder.load(folder).tokenizer
    tokenizer.add_tokens(["zebra"])
    tokenizer.save_pretrained(folder)
    assert "the tokenizer has 48 tokens but the model only 47 embeddings" in refused(folder)


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "albert"])
def test_a_missing_tokenizer_is_refused(family: Family, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(family(name), tmp_path / name))
    (folder / "tokenizer.json").unlink()
    assert "tokenizer" in refused(folder)
    (folder / "tokenizer_config.json").unlink()
    assert "tokenizer" in refused(folder)


def test_a_broken_tokenizer_is_refused(family: Family, copy: Copy) -> None:
    folder = copy(family("bert"))
    (folder / "tokenizer.json").write_text("{", encoding="utf-8")
    assert "the tokenizer cannot be opened" in refused(folder)


def test_not_an_encoder_of_text(tmp_path: Path, tiny_encoder_dir: Path) -> None:
    from transformers import BartConfig, BartModel

    sizes = {"d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 8}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "decoder_ffn_dim": 8}
    BartModel(BartConfig(vocab_size=47, **sizes, **heads)).save_pretrained(tmp_path)
    for path in tiny_encoder_dir.glob("tokenizer*"):
        shutil.copy(path, tmp_path)
    assert "is a BartModel; a text encoder or decoder is needed" in refused(tmp_path)


def test_the_encoder_of_t5(tmp_path: Path, tiny_encoder_dir: Path) -> None:
    from transformers import T5Config, T5Model

    sizes = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 2, "num_heads": 2}
    model = T5Model(T5Config(vocab_size=47, pad_token_id=0, **sizes)).eval()
    model.save_pretrained(tmp_path / "whole")
    for path in tiny_encoder_dir.glob("tokenizer*"):
        shutil.copy(path, tmp_path / "whole")
    encoder = SentenceEncoder.load(tmp_path / "whole", max_length=32)
    ids = torch.tensor(encoder.tokenize([SENTENCES[0]])[0])
    with torch.no_grad():
        expected = model.encoder(input_ids=ids).last_hidden_state.mean(dim=1)
    vectors = encoder.encode(SENTENCES)  # in batches with padding
    np.testing.assert_allclose(vectors[0], expected[0].numpy(), atol=1e-5)
    encoder.save(tmp_path / "encoder")
    again = SentenceEncoder.load(tmp_path / "encoder").encode(SENTENCES)
    np.testing.assert_allclose(again, vectors, atol=1e-5)


def test_unknown_names_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "could not be fetched from the Hugging Face Hub" in refused("no-such/model-at-all")
    missing = ("./mini", str(tmp_path / "x"), "a/b/c", "", "~nobody-of-that-name/x", "../mini")
    for name in (*missing, "x" * 5000, "a\0b", "no-such/model-at-all", "what is this"):
        assert "embedded model: small, mini" in refused(name)
    (tmp_path / "file").write_text("x", encoding="utf-8")
    assert "is a file; a model is a folder" in refused("file")
    (tmp_path / "empty").mkdir()
    assert "has no config.json" in refused("empty")
    (tmp_path / "mini").mkdir()
    assert "has no config.json" in refused("./mini")
    edit_json(tmp_path / "empty" / "config.json", model_type="bert")
    assert "has no model.safetensors" in refused("empty")


def test_an_unknown_device_is_refused(family: Family) -> None:
    with pytest.raises(ConfigError, match="device 'warp' cannot be used") as caught:
        SentenceEncoder.load(family("bert"), device="warp")
    assert "\n" not in str(caught.value)


def test_a_pooling_that_differs_from_the_recipe_is_logged(
    st_folder: Any, caplog: pytest.LogCaptureFixture
) -> None:
    from sentence_transformers.sentence_transformer.modules import Dense

    folder, _ = st_folder("mean", Dense(32, 16))
    encoder = SentenceEncoder.load(folder, pooling="max")
    assert (encoder.pooling, encoder.head) == ("max", None)
    assert "was saved with pooling 'mean' and a head, which is dropped" in caplog.text
    assert SentenceEncoder.load(folder, pooling="mean").embedding_dim == 16
