"""encode_stream: the same vectors as encode, chunk by chunk."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simcse_kit.encoder import inference, stream
from simcse_kit.encoder.encode_options import EncodeKeywords, EncodeOptions
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.stream import stream_vectors
from simcse_kit.errors import ConfigError, DataError
from tests.encoder.conftest import SENTENCES

texts = st.lists(st.sampled_from(SENTENCES) | st.text(max_size=8), max_size=12)


@pytest.fixture(scope="module")
def encoder(tiny_encoder_dir: Path) -> SentenceEncoder:
    return SentenceEncoder.load(tiny_encoder_dir)


@settings(max_examples=25, deadline=None)
@given(texts, st.integers(1, 13), st.booleans())
def test_chunks_laid_end_to_end_are_encode(
    encoder: SentenceEncoder, sentences: list[str], chunk: int, normalize: bool
) -> None:
    parts = list(encoder.encode_stream(iter(sentences), chunk=chunk, normalize=normalize))
    assert [len(part) for part in parts[:-1]] == [chunk] * (len(parts) - 1)
    assert all(part.dtype == np.float32 for part in parts)
    whole = np.concatenate([np.empty((0, 32), np.float32), *parts])
    np.testing.assert_allclose(
        whole, encoder.encode(sentences, normalize=normalize).reshape(-1, 32), atol=1e-5
    )


def test_read_one_chunk_ahead_in_the_thread_of_the_caller(encoder: SentenceEncoder) -> None:
    threads: set[int] = set()
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            threads.add(threading.get_ident())
            yield f"the cat {read}"

    vectors = encoder.encode_stream(endless(), chunk=5)
    assert read == 0
    for number in range(1, 4):
        assert next(vectors).shape == (5, 32)
        assert read == 5 * (number + 1)
        encoder.encode("the tokenizer is free between two chunks")
    assert isinstance(vectors, Iterator)
    vectors.close()  # type: ignore[attr-defined]
    assert threads == {threading.get_ident()}
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tokenize")]


def test_a_sentence_of_a_chunk_is_computed_once(
    encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    compute: Callable[..., Any] = inference.vectors_of_rows

    def counted(encoder: Any, given: list[list[int]], *options: Any) -> Any:
        rows.append(len(given))
        return compute(encoder, given, *options)

    monkeypatch.setattr(inference, "vectors_of_rows", counted)
    parts = list(encoder.encode_stream(["a cat"] * 5 + ["a dog", "a cat", "a dog"], chunk=4))
    assert rows == [1, 2]
    assert (parts[0] == parts[0][0]).all()


def test_long_sentences_make_small_chunks(
    encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_CHUNK_CHARACTERS", 20)
    lengths = [len(part) for part in encoder.encode_stream(["a " * 6] * 5 + ["a"] * 9, chunk=8)]
    assert lengths == [2, 2, 8, 2]


def test_what_was_cut_is_said_once(
    encoder: SentenceEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    list(encoder.encode_stream(["a " * 5, "a", "a " * 6, "a " * 6], chunk=2, max_length=4))
    assert [record.message for record in caplog.records] == [
        "2 of 3 distinct sentences are longer than 4 tokens and were cut"
    ]


@pytest.mark.parametrize("option", ["chunk", "batch_size", "token_budget", "max_length"])
def test_options_are_checked_before_anything_is_read(encoder: SentenceEncoder, option: str) -> None:
    with pytest.raises(ConfigError, match=f"{option}.*0"):
        encoder.encode_stream(iter(lambda: pytest.fail("read"), None), **{option: 0})


def test_bad_input(encoder: SentenceEncoder) -> None:
    for given_, kind in (("a sentence", "one string 'a sentence'"), (3, "int 3")):
        with pytest.raises(DataError, match=f"sentences are {kind}, not a"):
            encoder.encode_stream(given_)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="sentence 4 is int 7, not a string"):
        list(encoder.encode_stream(["a", "b", "c", "d", 7], chunk=2))  # type: ignore[list-item]


def test_each_group_comes_with_its_own_vectors(encoder: SentenceEncoder) -> None:
    groups = [("first", ["a cat", "the dog", "birds"]), ("none", []), ("last", ["a cat"])]
    found = list(stream_vectors(encoder, groups, EncodeOptions(), chunk=2))
    assert [(group, len(vectors)) for group, vectors in found] == [
        ("first", 2),
        ("first", 1),
        ("last", 1),
    ]
    # No chunk crosses a group, so the vectors of a group do not depend on what comes before it.
    (alone,) = (vectors for _, vectors in stream_vectors(encoder, groups[2:], EncodeOptions()))
    assert alone.tobytes() == found[2][1].tobytes()


def test_the_keywords_of_encode_are_the_options() -> None:
    given = [field for field in fields(EncodeOptions) if not field.name.startswith("_")]
    options = {field.name: field.type for field in given}
    assert options == {
        name: hint.__forward_arg__ for name, hint in EncodeKeywords.__annotations__.items()
    }
