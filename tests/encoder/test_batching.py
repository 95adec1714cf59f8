"""Batches of models that cannot be padded, that stop packing, or that run under unusual states."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from simcse_kit.encoder.batch_plan import pad_batch
from simcse_kit.encoder.device import usual_state
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.export.export import export_encoder
from simcse_kit.encoder.packing import hf_attention
from simcse_kit.encoder.packing.layout import Batching, UnpackableError, Unpacked, Window, layout_of
from simcse_kit.encoder.packing.probe import find_batching
from simcse_kit.errors import ModelError
from simcse_kit.methods import METHODS, build_config
from simcse_kit.methods.diffcse import _Discriminator
from tests.encoder.conftest import SENTENCES, _copy_tokenizer, edit_json
from tests.encoder.family_models import build

Made = Callable[..., Path]


@pytest.fixture(scope="module")
def made(tiny_encoder_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Folder of a tiny random model of a family, made once."""
    found: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in found:
            found[kind] = tmp_path_factory.mktemp(kind)
            build(kind).save_pretrained(found[kind])
            _copy_tokenizer(tiny_encoder_dir, found[kind])
        return found[kind]

    return make


def alone(encoder: SentenceEncoder) -> np.ndarray[Any, Any]:
    return np.stack([encoder.encode(text) for text in SENTENCES])


# ---------------------------------------------------------------- no padding


def test_vectors_without_padding(made: Made, caplog: pytest.LogCaptureFixture) -> None:
    encoder = SentenceEncoder.load(made("fnet"))
    expected = alone(encoder)
    assert "vectors of fnet depend on the padding" in caplog.text
    assert encoder.batching == Batching(packed=False, unpacked=Unpacked.EQUAL_LENGTHS)
    np.testing.assert_allclose(encoder.encode(SENTENCES), expected, atol=1e-6)
    np.testing.assert_allclose(
        encoder.encode(SENTENCES, batch_size=3, precision="bf16"), expected, atol=1e-6
    )
    streamed = np.concatenate(list(encoder.encode_stream(SENTENCES, chunk=5)))
    np.testing.assert_allclose(streamed, expected, atol=1e-6)


def test_gradients_without_padding(made: Made) -> None:
    encoder = SentenceEncoder.load(made("fnet")).train()
    encoder.set_dropout(0)
    rows, _ = encoder.tokenize(SENTENCES)
    ids, mask = pad_batch(rows, encoder.tokenizer.pad_token_id)
    weight = torch.randn(len(rows), encoder.embedding_dim)
    gradients = []
    for batches in ([(ids, mask)], [pad_batch([row], 0) for row in rows]):
        encoder.zero_grad()
        vectors = torch.cat([encoder(*batch) for batch in batches])
        (vectors * weight).sum().backward()
        gradients.append([parameter.grad for parameter in encoder.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_features_that_need_padding_are_refused(made: Made, tmp_path: Path) -> None:
    encoder = SentenceEncoder.load(made("fnet"))
    with pytest.raises(ModelError, match="a fnet depend on the padding; use another model"):
        encoder.masked_lm()
    with pytest.raises(ModelError, match="export to onnx runs padded batches"):
        export_encoder(encoder, tmp_path / "out", format="onnx")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ModelError, match=r"set method\.remove_bias to false"):
        METHODS.resolve("promptbert")(encoder, build_config("promptbert", {}))
    with pytest.raises(ModelError, match=r"set method\.rtd_weight to 0"):
        _Discriminator(encoder)


@pytest.mark.parametrize(
    ("mixes", "expected"),
    [("the batch", Unpacked.SINGLE_ROWS), ("chance", None)],
)
def test_models_that_mix_rows(made: Made, mixes: str, expected: Unpacked | None) -> None:
    encoder = SentenceEncoder.load(made("mpnet"))

    def disturb(_module: Any, _inputs: Any, output: Any) -> Any:
        states = output.last_hidden_state
        noise = states.mean(0, keepdim=True) if mixes == "the batch" else torch.rand_like(states)
        output.last_hidden_state = states + noise
        return output

    # As if it were a class of somebody's own, which is always tried.
    own = type(encoder.backbone)
    encoder.backbone.__class__ = type("Own", (own,), {"__module__": "transformers_modules.own"})
    encoder.backbone.register_forward_hook(disturb)
    if expected is None:
        with pytest.raises(ModelError, match="mpnet gives different states each time"):
            encoder.encode("the dog ran")
        return
    assert encoder.batching == Batching(packed=False, unpacked=expected)
    np.testing.assert_allclose(encoder.encode(SENTENCES), alone(encoder), atol=1e-6)


# ---------------------------------------------------------------- packing that fails


def test_a_refused_attempt_changes_nothing(
    made: Made, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: torch.Tensor) -> None:
        raise UnpackableError("attends elsewhere")

    monkeypatch.setattr(hf_attention, "window_of", refuse)
    encoder = SentenceEncoder.load(made("llama"))
    with caplog.at_level(logging.INFO):
        assert not encoder.packs
    assert "llama attends elsewhere: batches are padded" in caplog.text
    configs = [part.config for part in encoder.backbone.modules() if hasattr(part, "config")]
    assert {config._attn_implementation for config in configs} == {"sdpa"}
    np.testing.assert_allclose(encoder.encode(SENTENCES), alone(encoder), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"s_aux": torch.ones(2)}, "the options s_aux"),
        ({"softcap": 3.0, "sliding_window": 4, "indices": torch.ones(1)}, "indices, softcap"),
        ({"new_in_the_next_release": True}, "new_in_the_next_release"),
        ({"softcap": None, "output_attentions": False}, "makes its own attention masks"),
    ],
)
def test_unsupported_options_of_attention_are_refused(options: dict[str, Any], text: str) -> None:
    query = torch.randn(1, 2, 7, 4)
    with (
        hf_attention.packed_rows(layout_of([4, 3], torch.device("cpu"))),
        pytest.raises(UnpackableError, match=text),
    ):
        hf_attention.packed_attention(torch.nn.Module(), query, query, query, None, **options)


def test_packing_stops_after_an_unpackable_batch(
    made: Made, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An example is a mask that is a window for short rows only."""
    encoder = SentenceEncoder.load(made("llama"))
    expected = encoder.encode(SENTENCES)
    assert encoder.packs

    def refuse(_: torch.Tensor) -> None:
        raise UnpackableError("attends elsewhere")

    monkeypatch.setattr(hf_attention, "window_of", refuse)
    with caplog.at_level(logging.INFO):
        np.testing.assert_allclose(encoder.encode(SENTENCES), expected, atol=1e-6)
    assert "llama attends elsewhere: batches are padded" in caplog.text
    assert not encoder.packs
    encoder.known_batching = Batching(packed=True)
    ids, mask = pad_batch(encoder.tokenize(SENTENCES)[0], encoder.tokenizer.pad_token_id)
    np.testing.assert_allclose(encoder(ids, mask).detach().numpy(), expected, atol=1e-6)


def test_eager_attention_is_kept(made: Made, caplog: pytest.LogCaptureFixture) -> None:
    encoder = SentenceEncoder.load(made("llama"))
    expected = encoder.encode(SENTENCES)
    encoder = SentenceEncoder.load(made("llama"))
    encoder.backbone.set_attn_implementation("eager")
    with caplog.at_level(logging.INFO):
        np.testing.assert_allclose(encoder.encode(SENTENCES), expected, atol=1e-5)
    assert "llama runs with 'eager' attention only: batches are padded" in caplog.text
    assert encoder.backbone.config._attn_implementation == "eager"


def test_options_that_sdpa_drops_mean_eager_attention(
    made: Made, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As Gemma 2 ran in transformers 5.17: with sdpa, and without its softcap."""
    folder = made("gemma2")
    edit_json(folder / "config.json", attn_logit_softcapping=0.5)
    expected = SentenceEncoder.load(folder).encode(SENTENCES)
    own = hf_attention.sdpa_attention_forward

    def dropping(*arguments: Any, **options: Any) -> Any:
        options.pop("softcap", None)
        return own(*arguments, **options)

    monkeypatch.setattr(transformers.Gemma2Model, "_supports_sdpa", True)
    monkeypatch.setattr(hf_attention, "sdpa_attention_forward", dropping)
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "sdpa", dropping)
    encoder = SentenceEncoder.load(folder)
    assert encoder.backbone.config._attn_implementation == "sdpa"
    with caplog.at_level(logging.INFO):
        np.testing.assert_allclose(encoder.encode(SENTENCES), expected, atol=1e-5)
    assert "gemma2 passes its attention the options softcap: batches are padded" in caplog.text
    assert encoder.backbone.config._attn_implementation == "eager"


def test_masks_that_are_not_windows_are_refused() -> None:
    seen = torch.ones(6, 6, dtype=torch.bool).tril()
    assert hf_attention.window_of(seen) == Window(None, 0)
    assert hf_attention.window_of(seen.triu(-2)) == Window(2, 0)
    chunks = torch.block_diag(torch.ones(3, 3), torch.ones(3, 3)).bool()
    for mask in (chunks, chunks & seen, seen.clone().fill_diagonal_(False)):
        with pytest.raises(UnpackableError, match="not a window"):
            hf_attention.window_of(mask)


def test_several_threads_probe_a_model_once(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, calls = SentenceEncoder.load(made("llama")), []

    def counted(*arguments: Any) -> Batching:
        calls.append(arguments)
        return find_batching(*arguments)

    monkeypatch.setattr("simcse_kit.encoder.packing.probe.find_batching", counted)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: encoder.encode(SENTENCES), range(4)))
    assert len(calls) == 1
    for vectors in found:
        np.testing.assert_allclose(vectors, found[0], atol=1e-6)


# ---------------------------------------------------------------- opening


@pytest.mark.parametrize("kind", ["squeezebert", "layoutlm", "albert"])
def test_a_pooler_that_is_always_called(made: Made, kind: str, tmp_path: Path) -> None:
    encoder = SentenceEncoder.load(made(kind))
    vectors = encoder.encode(SENTENCES)
    assert not any("pooler" in name for name in encoder.backbone.state_dict())
    encoder.save(tmp_path / "saved")
    again = SentenceEncoder.load(tmp_path / "saved")
    np.testing.assert_allclose(again.encode(SENTENCES), vectors, atol=1e-6)


def test_a_configuration_that_asks_for_tuples(made: Made, copy: Callable[[Path], Path]) -> None:
    expected = SentenceEncoder.load(made("albert")).encode(SENTENCES)
    folder = copy(made("albert"))
    edit_json(folder / "config.json", return_dict=False, output_hidden_states=True)
    np.testing.assert_allclose(SentenceEncoder.load(folder).encode(SENTENCES), expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["llama", "fnet", "bert"])
def test_the_side_of_padding(made: Made, kind: str, copy: Callable[[Path], Path]) -> None:
    folder = copy(made(kind))
    found = []
    for side in ("left", "right"):
        edit_json(folder / "tokenizer_config.json", padding_side=side)
        encoder = SentenceEncoder.load(folder, pooling="last_token")
        assert encoder.tokenizer.padding_side == side
        found += [encoder.encode(SENTENCES), alone(encoder)]
    for vectors in found[1:]:
        np.testing.assert_allclose(vectors, found[0], atol=1e-5)


SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
         "intermediate_size": 16}  # fmt: skip
TEXT = SMALL | {"vocab_size": 48, "num_key_value_heads": 1, "head_dim": 8, "bos_token_id": 2,
                "eos_token_id": 3, "pad_token_id": 0}  # fmt: skip
PICTURES = SMALL | {"image_size": 8, "patch_size": 4}


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (("BartConfig", {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1,
                         "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "vocab_size": 48,
                         "encoder_attention_heads": 2, "decoder_attention_heads": 2}),
         "is a BartModel; a text encoder or decoder is needed"),
        (("CLIPConfig", {"text_config": TEXT, "vision_config": PICTURES, "projection_dim": 8}),
         "is a CLIPModel"),
        (("Gemma3Config", {"text_config": TEXT, "vision_config": PICTURES}),
         "names no single width"),
    ],
)  # fmt: skip
def test_models_of_more_than_text(
    config: tuple[str, dict[str, Any]], text: str, tiny_encoder_dir: Path, tmp_path: Path
) -> None:
    name, options = config
    model = transformers.AutoModel.from_config(getattr(transformers, name)(**options))
    model.save_pretrained(tmp_path)
    _copy_tokenizer(tiny_encoder_dir, tmp_path)
    with pytest.raises(ModelError, match=text):
        SentenceEncoder.load(tmp_path)


def test_positions_that_change_with_the_longest_row(tiny_encoder_dir: Path, tmp_path: Path) -> None:
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4,
            "long_factor": [3.0] * 4, "original_max_position_embeddings": 8}  # fmt: skip
    model = build("phi3", rope_parameters=rope, original_max_position_embeddings=8)
    model.save_pretrained(tmp_path)
    _copy_tokenizer(tiny_encoder_dir, tmp_path)
    encoder = SentenceEncoder.load(tmp_path)
    assert encoder.max_length == 8
    np.testing.assert_allclose(encoder.encode(SENTENCES), alone(encoder), atol=1e-6)


# ---------------------------------------------------------------- states of torch


@contextmanager
def default_dtype() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def default_device() -> Iterator[None]:
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


STATES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "default dtype": default_dtype,
    "default device": default_device,
    "inference mode": torch.inference_mode,
}


def test_usual_state() -> None:
    with default_device(), torch.autocast("cpu", torch.bfloat16):
        with usual_state(torch.device("cpu")):
            assert torch.ones(2).device.type == "cpu"
            assert not torch.is_autocast_enabled("cpu")
        assert torch.ones(2).device.type == "meta"
        assert torch.is_autocast_enabled("cpu")


@pytest.mark.long
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("kind", ["bert", "llama", "t5", "fnet"])
def test_states_of_torch_do_not_change_vectors(made: Made, kind: str, state: str) -> None:
    folder = made(kind)
    usual = SentenceEncoder.load(folder)
    expected = usual.encode(SENTENCES)
    encoder = SentenceEncoder.load(folder)
    with STATES[state]():
        found = encoder.encode(SENTENCES)
        streamed = np.concatenate(list(encoder.encode_stream(SENTENCES)))
    assert found.dtype == streamed.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(streamed, expected, atol=1e-5)
    assert encoder.batching == usual.batching
    # Nothing is left behind that a pass with gradients stumbles over.
    ids, mask = pad_batch(encoder.tokenize(SENTENCES)[0], encoder.tokenizer.pad_token_id)
    encoder(ids, mask).sum().backward()


@pytest.mark.parametrize("kind", ["modernbert", "llama"])
def test_a_first_pass_in_autocast_packs(made: Made, kind: str) -> None:
    encoder = SentenceEncoder.load(made(kind)).train()
    ids, mask = pad_batch(encoder.tokenize(SENTENCES)[0], encoder.tokenizer.pad_token_id)
    with torch.autocast("cpu", torch.bfloat16):
        encoder(ids, mask)
    assert encoder.packs
    assert encoder.training
