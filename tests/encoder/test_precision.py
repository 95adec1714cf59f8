"""encode(precision=): closeness to float32, the cache of layers, refusals."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.quantization import bf16, layer_cache
from simcse_kit.encoder.quantization.bf16 import bf16_pays
from simcse_kit.encoder.quantization.layer_cache import Precision, clear_cache
from simcse_kit.errors import ConfigError
from tests.encoder.conftest import SENTENCES

TEXTS = (Path(__file__).parents[2] / "data" / "sentences.txt").read_text("utf-8").splitlines()[:60]

needs_int8 = pytest.mark.skipif(
    not torch.cpu._is_vnni_supported(), reason="this CPU has no int8 instructions"
)
each = pytest.mark.parametrize("precision", ["bf16", pytest.param("int8", marks=needs_int8)])
both = pytest.mark.parametrize(
    ("precision", "least"), [("bf16", 0.999), pytest.param("int8", 0.995, marks=needs_int8)]
)


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    clear_cache()
    # Whether bf16 is faster depends on the machine; the vectors do not.
    monkeypatch.setattr(bf16, "bf16_pays", lambda *_: True)


@pytest.fixture(scope="module")
def mini() -> SentenceEncoder:
    return SentenceEncoder.load("mini", pooling="mean")


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    left, right = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (left, right))
    return np.asarray((left * right).sum(axis=1))


@pytest.mark.long
@both
@pytest.mark.parametrize("pooling", ["mean", "cls_before_pooler", "first_last_mean"])
def test_vectors_are_close_to_float32(
    mini: SentenceEncoder,
    monkeypatch: pytest.MonkeyPatch,
    precision: Precision,
    least: float,
    pooling: str,
) -> None:
    monkeypatch.setattr(mini, "pooling", pooling)
    exact = mini.encode(TEXTS)
    rough = mini.encode(TEXTS, precision=precision)
    assert cosines(exact, rough).min() > least
    assert np.abs(exact - rough).max() > 1e-5  # the precision was changed
    np.testing.assert_array_equal(mini.encode(TEXTS), exact)


@pytest.mark.long
@both
@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "mpnet", "electra"])
def test_families_are_close_to_float32(
    family: Callable[[str], Path], precision: Precision, least: float, name: str
) -> None:
    encoder = SentenceEncoder.load(family(name), pooling="mean")
    rough = encoder.encode(SENTENCES, precision=precision)
    # Random weights, ten times as large as usual, leave no direction to the noise.
    assert cosines(encoder.encode(SENTENCES), rough).min() > least - 0.02


@pytest.mark.long
@needs_int8
def test_same_vector_in_any_batch(mini: SentenceEncoder) -> None:
    vectors = mini.encode(TEXTS, precision="int8")
    for options in ({"batch_size": 7}, {"token_budget": 100}):
        again = mini.encode(TEXTS, precision="int8", **options)
        # Attention is float32, so that a number sometimes falls into the next step.
        assert cosines(vectors, again).min() > 0.9999
    alone = np.stack([mini.encode(text, precision="int8") for text in TEXTS[:3]])
    assert cosines(vectors[:3], alone).min() > 0.9999


@pytest.mark.long
@each
def test_number_of_threads_does_not_change_vectors(
    mini: SentenceEncoder, precision: Precision
) -> None:
    threads = torch.get_num_threads()
    made = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            made.append(mini.encode(TEXTS, precision=precision, token_budget=512))
    finally:
        torch.set_num_threads(threads)
    assert cosines(*made).min() > 0.9999


@pytest.mark.long
@needs_int8
def test_calibration_runs_once_and_again_when_weights_change(
    family: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    encoder = SentenceEncoder.load(family("bert"))

    def calibrations() -> int:
        return caplog.text.count("calibrated on")

    first = encoder.encode(SENTENCES, precision="int8")
    np.testing.assert_array_equal(encoder.encode(SENTENCES, precision="int8"), first)
    assert calibrations() == 1

    optimizer = torch.optim.AdamW(encoder.parameters(), lr=0.05, fused=True)
    encoder(*(torch.ones(2, 3, dtype=torch.int64),) * 2).sum().backward()
    optimizer.step()
    trained = encoder.encode(SENTENCES, precision="int8")
    assert calibrations() == 2
    assert np.abs(trained - first).max() > 0.01
    assert cosines(encoder.encode(SENTENCES), trained).min() > 0.97

    encoder.load_state_dict(SentenceEncoder.load(family("bert")).state_dict())
    np.testing.assert_allclose(encoder.encode(SENTENCES, precision="int8"), first, atol=1e-5)
    assert calibrations() == 3


@pytest.mark.long
@needs_int8
def test_log_shows_the_loss_of_accuracy(
    mini: SentenceEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    mini.encode(TEXTS, precision="int8")
    assert "calibrated on 40 sentences; cosine" in caplog.text
    assert "over 20 others: mean 0.99" in caplog.text
    clear_cache()
    mini.encode(TEXTS[0], precision="int8")
    assert "few were given" in caplog.text


@pytest.mark.long
@needs_int8
def test_sentences_of_the_package_calibrate_well(mini: SentenceEncoder) -> None:
    mini.encode(TEXTS[0], precision="int8")
    assert cosines(mini.encode(TEXTS), mini.encode(TEXTS, precision="int8")).min() > 0.99


@pytest.mark.long
@each
def test_training_mode_stays_and_dropout_is_off(
    bert: SentenceEncoder, precision: Precision
) -> None:
    expected = bert.encode(SENTENCES, precision=precision)
    clear_cache()
    bert.train()
    try:
        np.testing.assert_array_equal(bert.encode(SENTENCES, precision=precision), expected)
        assert bert.training
    finally:
        bert.eval()


@pytest.mark.long
@each
def test_streams_copies_and_empty_lists(bert: SentenceEncoder, precision: Precision) -> None:
    whole = bert.encode(SENTENCES, precision=precision)
    parts = list(bert.encode_stream(SENTENCES, chunk=3, precision=precision))
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-3)
    copied = copy.deepcopy(bert)
    np.testing.assert_allclose(copied.encode(SENTENCES, precision=precision), whole, atol=1e-5)
    assert bert.encode([], precision=precision).shape == (0, 32)


@pytest.mark.long
def test_bf16_that_is_not_faster_is_replaced_by_fp32(
    bert: SentenceEncoder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(bf16, "bf16_pays", bf16_pays)
    monkeypatch.setattr(bf16, "_LEAST_GAIN", 1e9)
    bf16_pays.cache_clear()
    try:
        for _ in range(2):
            vectors = bert.encode(SENTENCES, precision="bf16")
            np.testing.assert_allclose(vectors, bert.encode(SENTENCES), atol=1e-6)
    finally:
        bf16_pays.cache_clear()
    assert caplog.text.count("using fp32") == 1


@pytest.fixture
def albert(family: Callable[[str], Path]) -> SentenceEncoder:
    return SentenceEncoder.load(family("albert"), pooling="mean")


@pytest.mark.long
def test_bf16_of_another_architecture(
    albert: SentenceEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    vectors = albert.encode(SENTENCES, precision="bf16")
    np.testing.assert_array_equal(vectors, albert.encode(SENTENCES))
    assert "bf16 is not supported for albert; using fp32" in caplog.text


@pytest.mark.long
@needs_int8
def test_int8_of_another_architecture(albert: SentenceEncoder) -> None:
    with pytest.raises(ConfigError, match=r"int8.*albert.*'fp32' or 'bf16'.*simcse export"):
        albert.encode(SENTENCES, precision="int8")


@pytest.mark.long
@pytest.mark.parametrize("method", ["encode", "encode_stream"])
def test_unknown_precision(bert: SentenceEncoder, method: str) -> None:
    with pytest.raises(ConfigError, match=r"'fp8'; allowed: 'fp32', 'bf16', 'fp16', 'int8'"):
        getattr(bert, method)(["a cat"], precision="fp8")


@pytest.mark.long
@pytest.mark.parametrize(
    ("target", "value", "message"),
    [
        ("int8_instructions", lambda: ["i8mm"], "none of the instructions avx_vnni, avx512_vnni"),
        ("INT8_OPERATORS", ("qlinear_of_tomorrow",), "lacks oneDNN's int8 operators"),
    ],
)
def test_machine_without_int8(
    bert: SentenceEncoder, monkeypatch: pytest.MonkeyPatch, target: str, value: Any, message: str
) -> None:
    monkeypatch.setattr(layer_cache, target, value)
    with pytest.raises(ConfigError, match=f"'int8'.*{message}.*use 'fp32' or 'bf16'"):
        bert.encode("a cat", precision="int8")


@pytest.mark.long
def test_int8_of_half_precision_weights(family: Callable[[str], Path]) -> None:
    encoder = SentenceEncoder.load(family("bert")).bfloat16()
    with pytest.raises(ConfigError, match="float32 weights, and these are bfloat16"):
        encoder.encode("a cat", precision="int8")
