"""encode, tokenize and similarity: order, batches, lengths, modes and bad input."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from simcse_kit.encoder import tokenization
from simcse_kit.encoder.batch_plan import length_sorted_batches, pad_batch
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.packing.layout import Layout
from simcse_kit.errors import ConfigError, DataError
from tests.encoder.conftest import SENTENCES


@contextmanager
def watch(encoder: SentenceEncoder) -> Iterator[list[tuple[int, int]]]:
    """Rows, and tokens of the longest, of the batches that are computed."""
    shapes: list[tuple[int, int]] = []

    def watched(tokens: torch.Tensor, layout: Layout, *rest: Any) -> torch.Tensor:
        shapes.append((len(layout.order), layout.longest))
        return SentenceEncoder.forward_packed(encoder, tokens, layout, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder, "forward_packed", watched)
        yield shapes


@pytest.fixture(scope="module")
def alone(bert: SentenceEncoder) -> np.ndarray:
    return np.stack([bert.encode(text) for text in SENTENCES])


@pytest.mark.parametrize(
    "options",
    [
        *({}, {"batch_size": 1}, {"batch_size": 2}, {"batch_size": 64}, {"token_budget": 1}),
        *({"token_budget": 20}, {"token_budget": 40, "batch_size": 3}, {"token_budget": 10**9}),
    ],
)
def test_order_and_batches(
    bert: SentenceEncoder, alone: np.ndarray, options: dict[str, int]
) -> None:
    vectors = bert.encode(SENTENCES, **options)
    assert (vectors.shape, vectors.dtype) == ((len(SENTENCES), 32), np.float32)
    np.testing.assert_allclose(vectors, alone, atol=1e-5)
    backwards = bert.encode(SENTENCES[::-1], **options)[::-1]
    np.testing.assert_allclose(backwards, alone, atol=1e-5)


def test_duplicates_once_and_little_padding(bert: SentenceEncoder) -> None:
    with watch(bert) as shapes:
        vectors = bert.encode(["a cat"] * 5 + ["the dog ran ."] + ["a cat"], batch_size=1)
    assert shapes == [(1, 6), (1, 4)]
    assert (vectors[:5] == vectors[6]).all()
    with watch(bert) as shapes:
        bert.encode(["a " * n for n in range(1, 21)], token_budget=40)
    assert all(rows * length <= 40 for rows, length in shapes)
    assert sum(rows for rows, _ in shapes) == 20


def test_batches_by_hand() -> None:
    assert list(length_sorted_batches([3, 9, 1, 3], token_budget=6)) == [[1], [0, 3], [2]]
    assert list(length_sorted_batches([1, 1, 1], token_budget=9, batch_size=2)) == [[0, 1], [2]]
    assert list(length_sorted_batches([], token_budget=9)) == []
    ids, mask = pad_batch([[7, 8, 9], [5]], 4)
    assert ids.tolist() == [[7, 8, 9], [5, 4, 4]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert ids.dtype == mask.dtype == torch.int64


def test_shapes_and_kinds(bert: SentenceEncoder, alone: np.ndarray) -> None:
    assert bert.encode(SENTENCES[0]).shape == (32,)
    assert bert.encode([SENTENCES[0]]).shape == (1, 32)
    assert bert.encode([]).shape == (0, 32)
    assert bert.encode([], to="torch").shape == (0, 32)
    tensor = bert.encode(SENTENCES, to="torch")
    assert isinstance(tensor, torch.Tensor)
    assert (tensor.dtype, tensor.requires_grad) == (torch.float32, False)
    weight = torch.ones(32, requires_grad=True)
    (tensor @ weight).sum().backward()  # no tensor of inference mode: usable in training
    for given in (tuple(SENTENCES), np.array(SENTENCES), iter(SENTENCES)):
        np.testing.assert_allclose(bert.encode(given), alone, atol=1e-5)


def test_normalize(bert: SentenceEncoder, alone: np.ndarray) -> None:
    expected = alone / np.linalg.norm(alone, axis=1, keepdims=True)
    np.testing.assert_allclose(bert.encode(SENTENCES, normalize=True), expected, atol=1e-6)
    bert.normalize = True
    try:
        np.testing.assert_allclose(bert.encode(SENTENCES), expected, atol=1e-6)
        np.testing.assert_allclose(bert.encode(SENTENCES, normalize=False), alone, atol=1e-5)
        assert np.linalg.norm(bert.encode("a cat")) == pytest.approx(1)
    finally:
        bert.normalize = False


# ---------------------------------------------------------------- lengths


class SlowTokenizer:
    """The same tokenizer without the encodings of fast ones."""

    is_fast = False

    def __init__(self, tokenizer: Any):
        self.inner = tokenizer

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return {"input_ids": self.inner(*args, **kwargs)["input_ids"]}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@pytest.mark.parametrize("fast", [True, False])
def test_truncation(
    bert: SentenceEncoder,
    fast: bool,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not fast:
        monkeypatch.setattr(bert, "tokenizer", SlowTokenizer(bert.tokenizer))
    monkeypatch.setattr(tokenization, "TOKENIZE_AT_ONCE", 2)
    texts = ["a " * 3, "a " * 4, "a " * 5, "a " * 6, "a " * 6, "the"]  # 6 has 8 tokens
    rows, cut = bert.tokenize(texts, max_length=6)
    assert [len(row) for row in rows] == [5, 6, 6, 6, 6, 3]
    assert all(row[0] == 2 and row[-1] == 3 for row in rows)
    assert cut == 3
    vectors = bert.encode(texts, max_length=6)
    assert [record.message for record in caplog.records] == [
        "2 of 5 distinct sentences are longer than 6 tokens and were cut",
        "2 of 5 distinct sentences become the token ids of another one and get its vector, such "
        "as 'a a a a ' and 'a a a a a '; unknown tokens, lower-casing, dropped characters or "
        "truncation make them equal",
    ]
    np.testing.assert_allclose(vectors[2], vectors[1], atol=1e-6)
    caplog.clear()
    bert.encode(texts, max_length=6)  # a dev set is encoded many times
    assert not caplog.records
    bert.encode(texts)
    bert.encode(texts, max_length=8)
    assert caplog.records == []
    bert.encode(["a " * 31])
    assert "1 of 1 distinct sentences are longer than 32 tokens" in caplog.text


@pytest.mark.parametrize("length", [0, 1, 2, -5, 41, 10**9, True, 8.0, "8"])
def test_bad_length(bert: SentenceEncoder, length: Any) -> None:
    for texts in (["a"], []):
        with pytest.raises(ConfigError, match=f"max_length is {length!r}; .* at most 40"):
            bert.encode(texts, max_length=length)


def test_prompt_and_lowercase(bert: SentenceEncoder) -> None:
    bert.prompt, bert.lowercase = "The Dog ", True
    try:
        vector = bert.encode("RAN .")
    finally:
        bert.prompt, bert.lowercase = "", False
    np.testing.assert_allclose(vector, bert.encode("the dog ran ."), atol=1e-6)


# ---------------------------------------------------------------- modes


def test_dropout_off_and_modes_restored(bert: SentenceEncoder, alone: np.ndarray) -> None:
    bert.train()
    bert.backbone.encoder.eval()  # frozen below, trained above
    modes = [module.training for module in bert.modules()]
    try:
        np.testing.assert_allclose(bert.encode(SENTENCES), alone, atol=1e-5)
        assert [module.training for module in bert.modules()] == modes
        with pytest.raises(RuntimeError, match="on purpose"), watch_failing(bert):
            bert.encode("a cat")
        assert [module.training for module in bert.modules()] == modes
    finally:
        bert.eval()
    bert.encode("a cat")
    assert not bert.training


@contextmanager
def watch_failing(encoder: SentenceEncoder) -> Iterator[None]:
    def fail(*_: Any) -> None:
        raise RuntimeError("on purpose")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder, "forward_packed", fail)
        yield


def test_gradients_flow_in_forward_only(bert: SentenceEncoder) -> None:
    rows, _ = bert.tokenize(["a cat", "the"])
    ids, mask = pad_batch(rows, 0)
    assert bert(ids, mask).requires_grad
    assert not bert.encode("a cat", to="torch").requires_grad


def test_progress_stays_off_a_pipe(
    bert: SentenceEncoder, capfd: pytest.CaptureFixture[str]
) -> None:
    bert.encode(SENTENCES, progress=True)
    assert capfd.readouterr() == ("", "")


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("sentences", "message"),
    [
        (["a", None], "sentence 1 is NoneType None, not a string"),
        (["a", "b", 3.5], "sentence 2 is float 3.5, not a string"),
        ([["a"]], r"sentence 0 is list \['a'\], not a string"),
        ([np.zeros((9, 2))], "sentence 0 is ndarray array"),
        (b"bytes", r"sentences are bytes; decode them: bytes\(sentences\)"),
        (None, "sentences are NoneType None, not a string or an iterable"),
        (7, "sentences are int 7, not a string or an iterable"),
        (["a", "b \ud800 c"], r"sentence 1 holds half a surrogate pair: 'b \\ud800 c'"),
    ],
)
def test_no_string(bert: SentenceEncoder, sentences: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        bert.encode(sentences)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("what", ["batch_size", "token_budget"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "4"])
def test_bad_sizes(bert: SentenceEncoder, what: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"encode\({what}={value!r}\); it must be an integer"):
        bert.encode("a", **{what: value})


def test_bad_target(bert: SentenceEncoder) -> None:
    with pytest.raises(ConfigError, match="allowed: 'numpy', 'torch'"):
        bert.encode("a", to="jax")  # type: ignore[call-overload]


# ---------------------------------------------------------------- similarity


def test_similarity(bert: SentenceEncoder, alone: np.ndarray) -> None:
    unit = alone / np.linalg.norm(alone, axis=1, keepdims=True)
    expected = unit[:3] @ unit.T
    for a, b in (
        (SENTENCES[:3], SENTENCES),
        (alone[:3], SENTENCES),
        (alone[:3].astype(np.float64) * 7, torch.from_numpy(alone)),
        (np.array(SENTENCES[:3]), tuple(SENTENCES)),
    ):
        found = bert.similarity(a, b)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert bert.similarity("a cat", "a cat").shape == (1, 1)
    assert bert.similarity("a cat", "a cat").item() == pytest.approx(1)
    assert bert.similarity(alone[0], SENTENCES).shape == (1, len(SENTENCES))
    assert bert.similarity([], SENTENCES).shape == (0, len(SENTENCES))
    assert (np.abs(bert.similarity(alone, alone)) <= 1).all()
    assert (bert.similarity(np.zeros(32), SENTENCES) == 0).all()


def test_similarity_of_what_does_not_match(bert: SentenceEncoder) -> None:
    with pytest.raises(DataError, match=r"shapes \(1, 5\) and \(1, 32\) cannot be compared"):
        bert.similarity(np.ones(5), "a cat")
    with pytest.raises(DataError, match=r"the shape \(2, 2, 2\); give"):
        bert.similarity(np.ones((2, 2, 2)), np.ones((2, 2)))
    with pytest.raises(DataError, match="sentence 0 is int"):
        bert.similarity([1, 2], "a cat")  # type: ignore[list-item]
