"""encode(precision="bf16" or "fp16") on an accelerator, played by the CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from simcse_kit.encoder import accelerator, stream
from simcse_kit.encoder.dense import Dense
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.quantization import layer_cache
from simcse_kit.encoder.quantization.half import half_backbone, half_obstacle
from simcse_kit.encoder.quantization.layer_cache import Precision, clear_cache, half_encoder
from simcse_kit.errors import ConfigError, ModelError
from tests.encoder.conftest import SENTENCES
from tests.encoder.test_precision import TEXTS, cosines

both = pytest.mark.parametrize("precision", ["bf16", "fp16"])


@pytest.fixture(autouse=True)
def cpu_as_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    clear_cache()
    monkeypatch.setattr(accelerator, "is_accelerator", lambda _: True)


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Precision of each copy of the weights that is made."""
    made: list[str] = []

    def counted(backbone: Any, precision: str) -> Any:
        made.append(precision)
        return half_backbone(backbone, precision)

    monkeypatch.setattr(layer_cache, "half_backbone", counted)
    return made


@pytest.fixture(scope="module")
def mini() -> SentenceEncoder:
    return SentenceEncoder.load("mini")


@pytest.mark.long
@both
@pytest.mark.parametrize("pooling", ["mean", "cls_before_pooler", "first_last_mean", "max"])
def test_vectors_are_close_to_float32(precision: Precision, pooling: str) -> None:
    mini = SentenceEncoder.load("mini", pooling=pooling)
    exact = mini.encode(TEXTS)
    rough = mini.encode(TEXTS, precision=precision)
    assert rough.dtype == np.float32
    assert cosines(exact, rough).min() > 0.9995
    assert np.abs(exact - rough).max() > 1e-6  # the precision was changed
    np.testing.assert_array_equal(mini.encode(TEXTS), exact)


@pytest.mark.long
@both
@pytest.mark.parametrize("kind", ["bert", "mpnet", "modernbert", "qwen3", "t5", "albert"])
def test_families(made: Callable[..., Path], precision: Precision, kind: str) -> None:
    encoder = SentenceEncoder.load(made(kind), pooling="mean")
    with torch.no_grad():  # random weights are ten times as large as usual in some families
        for parameter in encoder.backbone.parameters():
            if parameter.dim() > 1:
                parameter.mul_(min(1.0, 0.02 / float(parameter.std())))
    rough = encoder.encode(SENTENCES, precision=precision)
    exact = encoder.encode(SENTENCES)
    assert cosines(exact, rough).min() > 0.9995
    assert np.abs(exact - rough).max() > 0


@both
def test_an_architecture_that_does_not_compute_in_half_precision(
    made: Callable[..., Path], precision: Precision, copies: list[str]
) -> None:
    encoder = SentenceEncoder.load(made("fnet"), pooling="mean")
    message = rf"'{precision}' is not supported for fnet on cpu \(Unsupported dtype.*; use 'fp32'"
    for _ in range(2):
        with pytest.raises(ConfigError, match=message):
            encoder.encode(SENTENCES, precision=precision)
    assert copies == [precision] * 2
    assert encoder.encode(SENTENCES).shape == (8, 32)


@both
def test_the_copy_is_made_once_and_again_when_weights_change(
    family: Callable[[str], Path], precision: Precision, copies: list[str]
) -> None:
    encoder = SentenceEncoder.load(family("bert"), pooling="mean")
    first = encoder.encode(SENTENCES, precision=precision)
    np.testing.assert_array_equal(encoder.encode(SENTENCES, precision=precision), first)
    list(encoder.encode_stream(SENTENCES, chunk=2, precision=precision))
    assert copies == [precision]
    optimizer = torch.optim.AdamW(encoder.backbone.parameters(), lr=1e-5, fused=True)
    encoder(*(torch.ones(2, 3, dtype=torch.int64),) * 2).sum().backward()
    optimizer.step()
    encoder.encode(SENTENCES, precision=precision)
    assert len(copies) == 2
    # The embeddings alone, past the version counter of the parameter.
    encoder.backbone.embeddings.word_embeddings.weight.data.mul_(3)
    changed = encoder.encode(SENTENCES, precision=precision)
    assert len(copies) == 3
    assert np.abs(changed - first).max() > 0.01
    assert cosines(encoder.encode(SENTENCES), changed).min() > 0.99


def test_weights_of_the_copy(family: Callable[[str], Path]) -> None:
    encoder = SentenceEncoder.load(family("modernbert"), pooling="mean")
    before = copy.deepcopy(encoder.state_dict())
    half = half_encoder(encoder, "bf16")
    kinds = {part.dtype for part in half.backbone.parameters()}
    assert kinds == {torch.bfloat16}
    buffers = dict(half.backbone.named_buffers())
    assert {part.dtype for name, part in buffers.items() if "inv_freq" in name} == {torch.float32}
    assert not half.backbone.training
    after = encoder.state_dict()
    assert all(torch.equal(after[name], part) for name, part in before.items())
    assert half.known_batching == encoder.batching


def test_tied_weights_stay_tied() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(5, 4)
            self.out = nn.Linear(4, 5)
            self.out.weight = self.words.weight

    half = half_backbone(Tied(), "fp16")
    assert half.out.weight is half.words.weight
    assert half.out.bias.dtype == torch.float16


def test_modules_that_transformers_keeps_in_float32(made: Callable[..., Path]) -> None:
    encoder = SentenceEncoder.load(made("t5"), pooling="mean")
    kept = {
        precision: {
            name.split(".")[-2]
            for name, part in half_backbone(encoder.backbone, precision).named_parameters()
            if part.dtype == torch.float32
        }
        for precision in ("fp16", "bf16")
    }
    assert kept == {"fp16": {"wo"}, "bf16": set()}


@both
def test_pooling_and_head_may_change_between_calls(
    family: Callable[[str], Path], precision: Precision, copies: list[str]
) -> None:
    encoder = SentenceEncoder.load(family("bert"), pooling="mean")
    encoder.encode("a cat", precision=precision)
    encoder.add_stage(Dense(32, 8))
    encoder.train()
    rough = encoder.encode(SENTENCES, precision=precision)
    assert encoder.training
    assert rough.shape == (8, 8)
    assert cosines(encoder.encode(SENTENCES), rough).min() > 0.99
    encoder.pooling = "max"
    rough = encoder.encode(SENTENCES, precision=precision)
    assert cosines(encoder.encode(SENTENCES), rough).min() > 0.99
    assert copies == [precision]


@both
def test_an_encoder_that_the_user_converted(
    family: Callable[[str], Path], precision: Precision
) -> None:
    encoder = SentenceEncoder.load(family("bert"), pooling="mean")
    encoder.add_stage(Dense(32, 8))
    exact = encoder.encode(SENTENCES)
    encoder.half()
    rough = encoder.encode(SENTENCES)
    assert rough.dtype == np.float32
    assert cosines(exact, rough).min() > 0.99
    assert cosines(exact, encoder.encode(SENTENCES, precision=precision)).min() > 0.99


@pytest.mark.parametrize("to", ["numpy", "torch"])
def test_overflow_of_fp16_is_an_error_and_not_nan(
    family: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, to: Any
) -> None:
    encoder = SentenceEncoder.load(family("bert"), pooling="mean")
    with torch.no_grad():
        encoder.backbone.embeddings.LayerNorm.weight.mul_(1e5)
    assert np.isfinite(encoder.encode(SENTENCES, precision="bf16")).all()
    message = r"precision 'fp16': \d of \d vectors have NaN or infinity.*; use 'bf16' or 'fp32'"
    with pytest.raises(ModelError, match=message):
        encoder.encode(SENTENCES, precision="fp16", to=to)
    with pytest.raises(ModelError, match=message):
        list(encoder.encode_stream(SENTENCES, precision="fp16"))
    monkeypatch.setattr(stream, "_FIRST_CHUNK", 3)
    with pytest.raises(ModelError, match=message):
        encoder.encode(SENTENCES, precision="fp16", to=to)


def test_fp16_on_a_cpu(bert: SentenceEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    message = "precision 'fp16': it runs on GPUs only, .* on the CPU; use 'fp32' or 'bf16'"
    with pytest.raises(ConfigError, match=message):
        bert.encode("a cat", precision="fp16")
    bert.encode("a cat", precision="fp32")


class Selected:
    """Stands for ``torch.cuda.device``."""

    def __init__(self, device: torch.device):
        self.device = device

    def __enter__(self) -> None:
        assert self.device == torch.device("cuda:1")

    def __exit__(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("supported", [True, False])
def test_cards_without_bf16(monkeypatch: pytest.MonkeyPatch, supported: bool) -> None:
    asked: list[bool] = []

    def answer(including_emulation: bool = True) -> bool:
        asked.append(including_emulation)
        return supported

    monkeypatch.setattr(torch.cuda, "device", Selected)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", answer)
    card = torch.device("cuda:1")
    expected = None if supported else "cuda:1 does not compute in bf16"
    assert half_obstacle("bf16", card) == expected
    assert half_obstacle("fp16", card) is None
    assert asked == [False]


def test_the_refusal_of_bf16_names_fp16(
    bert: SentenceEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer_cache, "half_obstacle", lambda *_: "cuda:0 does not compute in bf16")
    message = "precision 'bf16': cuda:0 does not compute in bf16; use 'fp16' or 'fp32'"
    with pytest.raises(ConfigError, match=message):
        bert.encode("a cat", precision="bf16")


def test_other_accelerators_are_tried() -> None:
    assert half_obstacle("bf16", torch.device("cpu")) is None
    assert half_obstacle("bf16", torch.device("mps")) == "mps does not compute in bf16"
