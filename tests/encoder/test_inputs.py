"""What callers give as sentences, vectors, sizes, names and devices, and torch's own settings."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from simcse_kit import train
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.export.sample_sentences import random_sample
from simcse_kit.errors import ConfigError, DataError, SimcseError
from simcse_kit.evaluation.embed import embed
from simcse_kit.evaluation.evaluate import evaluate
from simcse_kit.evaluation.pair_set import PairSet
from tests.encoder.conftest import SENTENCES

TWO = ["a cat", "the dog ran"]
FRAME = pd.DataFrame({"text": TWO, "label": [0, 1]})

ACCEPTED: dict[str, Callable[[], Any]] = {
    "list": lambda: TWO,
    "tuple": lambda: tuple(TWO),
    "deque": lambda: deque(TWO),
    "generator": lambda: (text for text in TWO),
    "keys": lambda: dict.fromkeys(TWO).keys(),
    "values": lambda: dict(enumerate(TWO)).values(),
    "array": lambda: np.array(TWO),
    "array of objects": lambda: np.array(TWO, dtype=object),
    "column of pandas": lambda: FRAME["text"],
    "column with odd labels": lambda: pd.Series(TWO, index=["columns", "column_names"]),
    "categories": lambda: pd.Series(TWO, dtype="category"),
    "index": lambda: pd.Index(TWO),
    "column of pyarrow": lambda: pa.table({"text": TWO})["text"],
    "array of pyarrow": lambda: pa.array(TWO),
    "column of datasets": lambda: datasets.Dataset.from_dict({"text": TWO})["text"],
}

REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "table of pandas": (
        lambda: FRAME,
        "a DataFrame with the columns 'text', 'label'; give one of them, such as data['text']",
    ),
    "table of pyarrow": (lambda: pa.table({"t": TWO}), "a Table with the columns 't'; give one"),
    "table of datasets": (
        lambda: datasets.Dataset.from_dict({"t": TWO}),
        "a Dataset with the columns 't'; give one",
    ),
    "mapping": (
        lambda: {"id": "a"},
        "a dict with 1 keys; give its values: list(sentences.values())",
    ),
    "mapping of lists": (lambda: {"text": TWO}, "a dict with 1 keys; give one list of strings"),
    "set": (lambda: set(TWO), "a set, which has no order"),
    "frozen set": (lambda: frozenset(TWO), "a frozenset, which has no order"),
    "bytes": (lambda: b"a cat", "sentences are bytes; decode them"),
    "path": (lambda: Path("text.txt"), "the path 'text.txt'; give the file's lines"),
    "nothing": (lambda: None, "sentences are NoneType None, not a string"),
    "number": (lambda: 2.5, "sentences are float 2.5, not a string"),
    "array without a dimension": (lambda: np.array("a"), "shape (); give one dimension"),
    "array of two dimensions": (lambda: np.array([TWO]), "shape (1, 2); give one dimension"),
    "vectors": (lambda: np.zeros((2, 3)), "shape (2, 3); give strings, not numbers"),
    "tensor": (lambda: torch.zeros(2, 3), "a Tensor of shape (2, 3); give strings"),
    "numbers": (lambda: [1, 2], "sentence 0 is int 1, not a string; give str(item)"),
    "column of numbers": (lambda: FRAME["label"], "sentence 0 is int 0, not a string"),
    "missing": (lambda: ["a", None], "sentence 1 is NoneType None, not a string; a missing value"),
    "not a number": (lambda: ["a", np.nan], "sentence 1 is float nan, not a string; a missing"),
    "missing in pandas": (lambda: pd.Series(["a", pd.NA], dtype=object), "sentence 1 is NAType"),
    "missing in pyarrow": (lambda: pa.array(["a", None]), "sentence 1 is NoneType None"),
    "bytes inside": (lambda: ["a", b"b"], "sentence 1 is bytes b'b', not a string; decode it"),
    "nested": (lambda: [["a", "b"]], "sentence 0 is list ['a', 'b'], not a string; give one flat"),
    "rows": (lambda: [{"text": "a"}], "sentence 0 is dict {'text': 'a'}, not a string; give the"),
    "paths": (lambda: [Path("a")], "sentence 0 is PosixPath PosixPath('a'), not a string"),
    "half a surrogate pair": (lambda: ["a\ud800"], "sentence 0 holds half a surrogate pair"),
}

# Every public function that takes sentences.
USES: dict[str, Callable[[SentenceEncoder, Any], Any]] = {
    "encode": lambda encoder, given: encoder.encode(given),
    "encode_stream": lambda encoder, given: list(encoder.encode_stream(given)),
    "tokenize": lambda encoder, given: encoder.tokenize(given),
    "similarity": lambda encoder, given: encoder.similarity(given, given),
    "embed": lambda encoder, given: embed(encoder, given),
    "pairs": lambda _, given: PairSet("p", given, given, np.zeros(2)),
    "calibration": lambda _, given: random_sample(given, 600),
}


@pytest.mark.parametrize("kind", ACCEPTED)
def test_accepted(bert: SentenceEncoder, kind: str) -> None:
    expected = bert.encode(TWO)
    np.testing.assert_array_equal(bert.encode(ACCEPTED[kind]()), expected)
    streamed = np.concatenate(list(bert.encode_stream(ACCEPTED[kind]())))
    np.testing.assert_array_equal(streamed, expected)
    assert bert.tokenize(ACCEPTED[kind]()) == bert.tokenize(TWO)
    assert PairSet("p", ACCEPTED[kind](), TWO, np.zeros(2)).sentences() == TWO
    assert sorted(random_sample(ACCEPTED[kind](), 600)) == sorted(TWO)


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("kind", REFUSED)
def test_refused(bert: SentenceEncoder, kind: str, use: str) -> None:
    given, message = REFUSED[kind]
    if use == "similarity" and kind in ("vectors", "tensor"):
        return  # vectors are what it takes
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        USES[use](bert, given())
    assert "\n" not in str(caught.value)


def test_one_string_and_none_at_all(bert: SentenceEncoder) -> None:
    assert bert.tokenize("a cat") == bert.tokenize(["a cat"])
    for nothing in ([], pd.Series([], dtype=str), np.array([], dtype=str)):
        assert bert.encode(nothing).shape == (0, 32)
        assert list(bert.encode_stream(nothing)) == []
        assert bert.tokenize(nothing) == ([], 0)


def test_remedies_work(bert: SentenceEncoder) -> None:
    data, sentences = FRAME, {"id": "a cat"}
    np.testing.assert_array_equal(bert.encode(data["text"]), bert.encode(TWO))
    assert bert.encode(list(sentences.values())).shape == (1, 32)
    assert bert.encode(sorted(set(TWO))).shape == (2, 32)
    assert bert.encode(np.array([TWO]).reshape(-1)).shape == (2, 32)
    assert bert.encode(b"a cat".decode("utf-8")).shape == (32,)


# ---------------------------------------------------------------- vectors

RIGHT_VECTORS: dict[str, Callable[[np.ndarray], Any]] = {
    "float64": lambda v: v.astype(np.float64),
    "float16": lambda v: v.astype(np.float16),
    "bfloat16": lambda v: torch.from_numpy(v).bfloat16(),
    "with a gradient": lambda v: torch.from_numpy(v).requires_grad_(),
    "list of arrays": lambda v: list(v),
    "list of tensors": lambda v: list(torch.from_numpy(v)),
    "backwards in memory": lambda v: v[:, ::-1][:, ::-1],
}


@pytest.mark.parametrize("kind", RIGHT_VECTORS)
def test_vectors(bert: SentenceEncoder, kind: str) -> None:
    vectors = bert.encode(TWO)
    found = bert.similarity(RIGHT_VECTORS[kind](vectors), TWO)
    np.testing.assert_allclose(found, bert.similarity(TWO, TWO), atol=1e-2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.full((2, 32), np.nan), "vector 0 holds NaN or infinity"),
        (torch.tensor([[0.0] * 32, [torch.inf] * 32]), "vector 1 holds NaN or infinity"),
        (np.ones((2, 32), dtype=complex), "vectors are of type complex128"),
        (torch.ones(32, dtype=torch.complex64), "vectors are of type torch.complex64"),
        (np.array(2.5), "vectors have the shape ()"),
        ([np.ones(32), np.ones(31)], "vectors have different shapes: (31,), (32,)"),
        (np.ones(31), "shapes (1, 31) and (2, 32) cannot be compared"),
    ],
)
def test_wrong_vectors(bert: SentenceEncoder, given: Any, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        bert.similarity(given, TWO)


# ---------------------------------------------------------------- other arguments

NO_NUMBERS: list[Any] = [True, 2.5, 0, -1, "8", np.float32(8), np.array(8), torch.tensor(8), []]
NO_TEXTS: list[Any] = ["a\0b", True, 3, 2.5, b"mini", ["mini"], {}, object(), np.array("mini")]


@pytest.mark.parametrize("name", ["batch_size", "token_budget", "max_length", "chunk"])
def test_sizes(bert: SentenceEncoder, name: str) -> None:
    expected = bert.encode(TWO)

    def encode(size: Any) -> np.ndarray:
        return np.concatenate(list(bert.encode_stream(TWO, **{name: size})))

    for size in (8, np.int64(8), np.uint8(8)):
        np.testing.assert_allclose(encode(size), expected, atol=1e-6)
    for size in NO_NUMBERS:
        with pytest.raises(ConfigError, match=name):
            encode(size)


@pytest.mark.parametrize("given", NO_TEXTS)
def test_names(bert: SentenceEncoder, tmp_path: Path, given: Any) -> None:
    folder = bert.source
    assert folder is not None
    uses: list[Callable[[], Any]] = [
        lambda: SentenceEncoder.load(given),
        lambda: SentenceEncoder.load(folder, pooling=given),
        lambda: SentenceEncoder.load(folder, template=given),
        lambda: bert.save(given),
        lambda: evaluate(bert, given if given != ["mini"] else [given]),
        lambda: evaluate(bert, str(tmp_path / "x.tsv"), data=given),
        lambda: evaluate(given, str(graded(tmp_path))),
        lambda: train(given),
        lambda: bert.encode("a", to=given),
        lambda: bert.encode("a", precision=given),
    ]
    for use in uses:
        with pytest.raises(SimcseError) as caught:
            use()
        assert "\n" not in str(caught.value)


def graded(folder: Path) -> Path:
    path = folder / "graded.tsv"
    path.write_text("a cat\tthe cat\t5\na dog\ta car\t1\nbirds\tmusic\t0\n")
    return path


@pytest.mark.parametrize(
    "device", [True, 2.5, "", "gpu", [], object(), "meta", torch.device("meta"), "cuda:99", 99]
)
def test_devices(bert: SentenceEncoder, device: Any) -> None:
    assert bert.source is not None
    with pytest.raises(ConfigError, match=r"device .* cannot be used"):
        SentenceEncoder.load(bert.source, device=device)


@pytest.mark.parametrize("given", ["yes", [], 2, 2.5, np.array([1, 2])])
def test_switches(bert: SentenceEncoder, given: Any) -> None:
    for name in ("normalize", "progress"):
        with pytest.raises(ConfigError, match=rf"encode\({name}=.*; give True or False"):
            bert.encode("a", **{name: given})
    np.testing.assert_array_equal(
        bert.encode("a", normalize=np.True_), bert.encode("a", normalize=1)
    )


@pytest.mark.parametrize("given", [None, "0.1", [], True, 1, -0.1, np.nan])
def test_dropout(bert: SentenceEncoder, given: Any) -> None:
    with pytest.raises(ConfigError, match="dropout is"):
        bert.set_dropout(given)


# ---------------------------------------------------------------- torch's own settings


@contextmanager
def default_dtype(kind: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(kind)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def default_device(name: str) -> Iterator[None]:
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


SETTINGS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "device": lambda: default_device("meta"),
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
}


@pytest.mark.long
@pytest.mark.parametrize("name", ["bert", "mpnet", "modernbert"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_settings(family: Callable[[str], Path], name: str, setting: str) -> None:
    usual = SentenceEncoder.load(family(name))
    expected = usual.encode(SENTENCES)
    with SETTINGS[setting]():
        encoder = SentenceEncoder.load(family(name))
        inside = encoder.encode(SENTENCES)
        first = encoder.encode(SENTENCES[0], to="torch")
        streamed = np.concatenate(list(encoder.encode_stream(SENTENCES, chunk=3)))
        alike = encoder.similarity(SENTENCES, inside)
        np.testing.assert_allclose(usual.encode(SENTENCES), expected, atol=1e-6)
    for vectors in (inside, streamed, encoder.encode(SENTENCES)):
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(vectors, expected, atol=1e-6)
    assert (first.dtype, first.device.type) == (torch.float32, "cpu")
    np.testing.assert_allclose(alike, usual.similarity(SENTENCES, expected), atol=1e-6)
    # What was loaded can be trained.
    assert {part.dtype for part in encoder.parameters()} == {torch.float32}
    encoder.train()
    ids = torch.tensor([[2, 5, 6, 3]])
    encoder(ids, torch.ones_like(ids)).sum().backward()
    assert any(part.grad is not None for part in encoder.parameters())


@pytest.mark.parametrize("pooling", ["cls", "first_last_mean"])
def test_saving_under_settings(
    simcse_checkpoint: Callable[..., Path], tmp_path: Path, pooling: str
) -> None:
    folder = simcse_checkpoint("bert")
    expected = SentenceEncoder.load(folder, pooling=pooling).encode(SENTENCES)
    for setting in ("float64", "device", "inference mode"):
        with SETTINGS[setting]():
            encoder = SentenceEncoder.load(folder, pooling=pooling)
            encoder.save(tmp_path / "saved")
            np.testing.assert_allclose(encoder.encode(SENTENCES), expected, atol=1e-6)
    saved = SentenceEncoder.load(tmp_path / "saved")
    np.testing.assert_allclose(saved.encode(SENTENCES), expected, atol=1e-6)
