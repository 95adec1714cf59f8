"""Encoding on an accelerator, played by the CPU and by the meta device."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from simcse_kit.encoder import accelerator, forward_pass, queued
from simcse_kit.encoder import stream as stream_module
from simcse_kit.encoder.accelerator import is_out_of_memory, tokens_that_fit
from simcse_kit.encoder.dense import Dense
from simcse_kit.encoder.encode_options import EncodeOptions
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.quantization.layer_cache import Precision
from simcse_kit.encoder.queued import QueuedEncoding
from simcse_kit.errors import ModelError
from tests.encoder.conftest import SENTENCES
from tests.meta import META, operators

MANY = [
    f"{text} {'a cat ' * (number % 5)}{number % 9}" for number, text in enumerate(SENTENCES * 5)
]


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU is treated as an accelerator."""
    monkeypatch.setattr(accelerator, "is_accelerator", lambda _: True)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "_FIRST_CHUNK", 3)
    monkeypatch.setattr(stream_module, "CHUNK", 12)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Lengths of the rows of each batch that is computed."""
    seen: list[list[int]] = []
    compute: Callable[..., Any] = forward_pass.vectors_of_batch

    def watched(model: Any, rows: list[list[int]], *rest: Any) -> torch.Tensor:
        seen.append([len(row) for row in rows])
        result: torch.Tensor = compute(model, rows, *rest)
        return result

    monkeypatch.setattr(queued, "vectors_of_batch", watched)
    return seen


class Card:
    """A device whose memory holds a batch of ``room`` tokens."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int, error: Exception | None = None):
        self.room = room
        self.failed: list[int] = []
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        compute: Callable[..., Any] = forward_pass.vectors_of_batch

        def limited(model: Any, rows: list[list[int]], *rest: Any) -> Any:
            tokens = sum(map(len, rows))
            if tokens > self.room:
                self.failed.append(tokens)
                raise self.error
            return compute(model, rows, *rest)

        monkeypatch.setattr(queued, "vectors_of_batch", limited)


# ---------------------------------------------------------------- vectors


@pytest.mark.parametrize("pooling", ["mean", "cls_before_pooler", "last_token", "last_two_mean"])
@pytest.mark.parametrize(
    "options", [{}, {"batch_size": 3}, {"token_budget": 1}, {"token_budget": 30, "normalize": True}]
)
def test_vectors_are_those_of_the_cpu(
    family: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    pooling: str,
    options: dict[str, Any],
) -> None:
    bert = SentenceEncoder.load(family("bert"), pooling=pooling)
    expected = bert.encode(SENTENCES, **options)
    monkeypatch.setattr(accelerator, "is_accelerator", lambda _: True)
    np.testing.assert_allclose(bert.encode(SENTENCES, **options), expected, atol=1e-5)
    np.testing.assert_allclose(bert.encode(SENTENCES[0], **options), expected[0], atol=1e-5)
    assert bert.encode([]).shape == (0, 32)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("to", ["numpy", "torch"])
def test_a_prompt_is_left_out_and_vectors_are_truncated_as_on_the_cpu(
    family: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, to: Any
) -> None:
    bert = SentenceEncoder.load(family("bert"), pooling="mean")
    bert.include_prompt = False
    options: dict[str, Any] = {"prompt": "the dog ran ", "truncate_dim": 9}
    expected = bert.encode(MANY, **options)
    assert not np.allclose(expected, bert.encode(MANY, truncate_dim=9), atol=1e-2)
    monkeypatch.setattr(accelerator, "is_accelerator", lambda _: True)
    monkeypatch.setattr("simcse_kit.encoder.packing.layout.uses_index", lambda _: True)
    found = np.asarray(bert.encode(MANY, to=to, **options))
    assert found.shape == (len(MANY), 9)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("to", ["numpy", "torch"])
@pytest.mark.parametrize("name", ["bert", "albert"])
def test_many_sentences_are_tokenized_in_chunks_and_keep_their_order(
    family: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    to: Any,
    name: str,
) -> None:
    encoder = SentenceEncoder.load(family(name), pooling="mean")
    texts = [*MANY, *MANY[::3], "zzz yyy", "a zzz"]
    expected = encoder.encode(texts, max_length=9)
    # The example of an unknown token comes from the first chunk, and not from all sentences.
    lines = [line.partition(", such as")[0] for line in caplog.messages]
    assert any("become the token ids of another one" in line for line in lines), lines
    caplog.clear()
    monkeypatch.setattr(accelerator, "is_accelerator", lambda _: True)
    # A fresh encoder, because a tokenizer says each line once.
    found = SentenceEncoder.load(family(name), pooling="mean").encode(texts, max_length=9, to=to)
    assert isinstance(found, torch.Tensor if to == "torch" else np.ndarray)
    np.testing.assert_allclose(np.asarray(found), expected, atol=1e-5)
    assert [line.partition(", such as")[0] for line in caplog.messages] == lines


@pytest.mark.usefixtures("small_chunks")
def test_chunks_grow() -> None:
    found = list(stream_module._growing_chunks(list("abcdefghijklmnopqrstuvwxyz")))
    assert [(start, len(part)) for start, part in found] == [(0, 3), (3, 6), (9, 12), (21, 5)]


@pytest.mark.parametrize("kind", ["t5", "fnet"])
def test_models_that_do_not_pack(made: Any, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    encoder = SentenceEncoder.load(made(kind), pooling="mean")
    expected = encoder.encode(SENTENCES)
    monkeypatch.setattr(accelerator, "is_accelerator", lambda _: True)
    np.testing.assert_allclose(encoder.encode(SENTENCES, token_budget=40), expected, atol=1e-4)


@pytest.mark.usefixtures("ahead")
def test_a_stream_computes_one_chunk_while_the_caller_uses_another(
    bert: SentenceEncoder,
) -> None:
    read = 0

    def sentences() -> Iterator[str]:
        nonlocal read
        for read in range(1, 18):
            yield f"the cat {'a ' * read}"

    stream = bert.encode_stream(sentences(), chunk=5)
    assert read == 0
    next(stream)
    assert read == 15  # the chunk that is computed, and the one that is tokenized
    parts = [next(stream) for _ in range(3)]
    assert [len(part) for part in parts] == [5, 5, 2]
    assert next(stream, None) is None


# ---------------------------------------------------------------- batches and memory


@pytest.mark.usefixtures("ahead")
def test_a_packed_batch_is_limited_by_its_real_tokens(
    bert: SentenceEncoder, batches: list[list[int]]
) -> None:
    rows = [[2, *[5] * length, 3] for length in (1, 20, 3, 8, 2, 5)]
    QueuedEncoding(bert, EncodeOptions(token_budget=22)).vectors(rows)
    assert batches == [[22], [10, 7, 5], [4, 3]]
    batches.clear()
    QueuedEncoding(bert, EncodeOptions(token_budget=30, batch_size=2)).vectors(rows)
    assert batches == [[22], [10, 7], [5, 4], [3]]
    batches.clear()
    QueuedEncoding(bert, EncodeOptions()).vectors(rows)
    assert len(batches) == 1
    batches.clear()
    # One long row among many short ones, which some kernels would pad to its length.
    QueuedEncoding(bert, EncodeOptions(token_budget=40)).vectors([[5] * 20, *[[5] * 2] * 10])
    assert batches == [[20, 2, 2, 2], [2] * 7]


@pytest.mark.usefixtures("ahead")
def test_a_padded_batch_is_limited_with_its_padding(made: Any, batches: list[list[int]]) -> None:
    encoder = SentenceEncoder.load(made("t5"), pooling="mean")
    rows = [[5] * length for length in (1, 20, 3, 8, 2, 5)]
    QueuedEncoding(encoder, EncodeOptions(token_budget=22)).vectors(rows)
    assert batches == [[20], [8, 5], [3, 2, 1]]


@pytest.mark.usefixtures("ahead")
def test_large_jobs_are_divided_so_that_the_host_prepares_batches_ahead(
    bert: SentenceEncoder, batches: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queued, "FEWEST_TOKENS", 20)
    QueuedEncoding(bert, EncodeOptions()).vectors([[5] * 10] * 16)
    assert [sum(batch) for batch in batches] == [40] * 4


def test_the_budget_follows_the_free_memory(bert: SentenceEncoder) -> None:
    budgets = [tokens_that_fit(bert, free) for free in (0, 40 * 10**6, 80 * 10**9)]
    assert budgets[0] == 8192
    assert budgets[2] == 262144
    half = tokens_that_fit(bert.half(), 40 * 10**6)
    bert.float()
    assert 8192 < budgets[1] < half < 262144


@pytest.mark.parametrize(
    "error",
    [
        None,
        RuntimeError("MPS backend out of memory (MPS allocated: 18.1 GB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_out_of_memory_halves_the_budget_once_and_keeps_the_order(
    bert: SentenceEncoder,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception | None,
) -> None:
    expected = bert.encode(MANY)
    monkeypatch.setattr(accelerator, "is_accelerator", lambda _: True)
    card = Card(monkeypatch, 40, error)
    done: list[int] = []
    rows, _ = bert.tokenize(MANY)
    queue = QueuedEncoding(bert, EncodeOptions(token_budget=70), done.append)
    np.testing.assert_allclose(queue.vectors(rows).numpy(), expected, atol=1e-5)
    assert len(card.failed) == 1
    assert sum(done) == len(rows)
    (record,) = [one for one in caplog.records if "memory" in one.message]
    tokens = card.failed[0]
    assert record.levelno == logging.WARNING
    assert record.message == (
        f"cpu ran out of memory in a forward pass of {tokens} tokens; from now on a pass has at "
        f"most {tokens // 2} tokens"
    )
    queue.vectors(rows)
    assert len(card.failed) == 1  # the smaller budget is kept


def test_a_stream_keeps_the_smaller_budget(
    bert: SentenceEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = bert.encode(MANY)
    monkeypatch.setattr(accelerator, "is_accelerator", lambda _: True)
    card = Card(monkeypatch, 60)
    parts = list(bert.encode_stream(MANY, chunk=8, token_budget=100))
    np.testing.assert_allclose(np.concatenate(parts), expected, atol=1e-5)
    assert len(card.failed) == 1


@pytest.mark.usefixtures("ahead")
def test_a_sentence_that_does_not_fit_is_refused_in_one_line(
    bert: SentenceEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    Card(monkeypatch, 20)
    with pytest.raises(
        ModelError, match=r"a sentence of 32 tokens does not fit .* max_length"
    ) as e:
        bert.encode(["a cat", "a " * 40])
    assert "\n" not in str(e.value)
    assert bert.encode(["a cat", "a " * 40], max_length=16).shape == (2, 32)


@pytest.mark.usefixtures("ahead")
def test_other_errors_pass(bert: SentenceEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    Card(monkeypatch, 1, RuntimeError("device-side assert"))
    with pytest.raises(RuntimeError, match="device-side assert"):
        bert.encode(SENTENCES)
    assert not is_out_of_memory(ValueError("out of memory"))


@pytest.mark.usefixtures("ahead")
def test_weights_that_do_not_fit_in_half_precision(
    bert: SentenceEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(queued, "half_encoder", full)
    with pytest.raises(ModelError, match="the copy of the weights in bf16 does not fit"):
        bert.encode("a cat", precision="bf16")


class Event:
    def __init__(self, log: list[str], number: int):
        self.log, self.number = log, number

    def synchronize(self) -> None:
        self.log.append(f"wait {self.number}")


@pytest.mark.usefixtures("ahead")
def test_the_host_is_at_most_four_passes_ahead_and_the_bar_counts_finished_ones(
    bert: SentenceEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []
    count = iter(range(100))
    monkeypatch.setattr(queued, "recorded_event", lambda _: Event(log, next(count)))
    queue = QueuedEncoding(
        bert, EncodeOptions(batch_size=2), lambda rows: log.append(f"{rows} done")
    )
    queue.vectors([[5, 6]] * 13)
    assert log == ["wait 0", "2 done", "wait 1", "2 done", "wait 2", "2 done"]
    queue.finish()
    assert log[6:] == [
        *("wait 3", "2 done", "wait 4", "2 done", "wait 5", "2 done", "wait 6", "1 done")
    ]


# ---------------------------------------------------------------- no host synchronisation


def test_queueing_a_batch_reads_nothing_from_the_device(
    family: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The forward pass itself has its own tests, so a simple one takes its place."""
    encoder = SentenceEncoder.load(family("bert"), pooling="mean")
    encoder.to(META)

    def compute(model: SentenceEncoder, rows: list[list[int]], *_: Any) -> torch.Tensor:
        return torch.empty(len(rows), model.embedding_dim, device=META)

    monkeypatch.setattr(queued, "vectors_of_batch", compute)
    rows, _ = encoder.tokenize(MANY)
    with operators() as counts:
        vectors = QueuedEncoding(encoder, EncodeOptions(token_budget=60)).vectors(rows)
    assert vectors.shape == (len(MANY), 32)
    copies = {
        name: count for name, count in counts.items() if name.startswith(("aten.to.", "aten._to"))
    }
    assert sum(copies.values()) == 1, copies  # the order of the rows


@pytest.mark.long
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("pooling", ["mean", "cls_before_pooler", "last_two_mean"])
def test_a_whole_encoding_batch_reads_nothing_from_the_device(
    family: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    pooling: str,
    precision: Precision,
) -> None:
    encoder = SentenceEncoder.load(family("bert"), pooling=pooling)
    encoder.add_stage(Dense(32, 8))
    rows, _ = encoder.tokenize(MANY)
    # The state of the weights is read once, when the copy in half precision is made.
    monkeypatch.setattr(accelerator, "is_accelerator", lambda _: True)
    queue = QueuedEncoding(encoder, EncodeOptions(precision=precision, token_budget=60))
    queue._model.to(META)
    encoder.to(META)
    with operators():
        vectors = queue.vectors(rows)
    assert vectors.shape == (len(MANY), 8)
    assert vectors.dtype == torch.float32
