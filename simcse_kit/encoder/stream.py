"""Vectors of sentence streams of any length, in bounded memory."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from simcse_kit.encoder.batch_plan import grouped
from simcse_kit.encoder.encode_options import EncodeOptions, check_size
from simcse_kit.encoder.forked_processes import require_same_process
from simcse_kit.encoder.inference import ENCODE_BAR, TokenizedTexts
from simcse_kit.encoder.inputs import texts_one_by_one, whole_number
from simcse_kit.encoder.model import EncoderModel
from simcse_kit.encoder.token_counts import TokenCounts
from simcse_kit.errors import ConfigError
from simcse_kit.utils.process import return_freed_memory
from simcse_kit.utils.progress import progress_bar

__all__ = ["CHUNK", "stream_vectors"]

CHUNK = 8192
"""Default number of sentences per chunk: enough to make batches of similar length."""

# Sentences may be a million characters long; a chunk also ends after this number of characters.
_CHUNK_CHARACTERS = 8_000_000
# Seconds between two calls; a call after each of many small chunks would cost time.
_GIVE_BACK_EVERY = 5.0

Group = TypeVar("Group")


def stream_vectors(
    model: EncoderModel,
    groups: Iterable[tuple[Group, Iterable[str]]],
    options: EncodeOptions,
    *,
    chunk: int = CHUNK,
    total: int | None = None,
    counts: TokenCounts | None = None,
) -> Iterator[tuple[Group, NDArray[np.float32]]]:
    """Compute the vectors of groups of sentences, one group after the other.

    No chunk holds sentences of two groups, so the vectors of a group are equal bit for bit
    whatever comes before the group.

    Args:
        model: Encoder.
        groups: Each group with its sentences; read one chunk ahead.
        options: How sentences become vectors.
        chunk: Maximum number of sentences per chunk.
        total: Number of sentences of all groups, if known, for the progress bar.
        counts: Statistics to which those of the sentences are added; equal token ids are counted
            within a chunk.

    Yields:
        The group and the vectors ``(rows, embedding_dim)`` of its next sentences.

    Raises:
        ConfigError: An option is not allowed; raised before anything is read.
        DataError: An entry is not a string; raised when it is read.
    """
    check_size("chunk", chunk)
    if total is not None and (whole_number(total) is None or total < 0):
        raise ConfigError(f"encode(total={total!r}); it must be a number of sentences")
    options = options.for_model(model)
    # smoothing=0 shows the average speed: batches are sorted by length, so the instantaneous speed
    # misleads.
    bar = progress_bar(total, shown=options.progress, smoothing=0, **ENCODE_BAR)
    counts = TokenCounts() if counts is None else counts
    return _stream(model, _chunks(groups, chunk), options, bar, counts)


def _stream(
    model: EncoderModel,
    chunks: Iterator[tuple[Group, list[str]]],
    options: EncodeOptions,
    bar: Any,
    counts: TokenCounts,
) -> Iterator[tuple[Group, NDArray[np.float32]]]:
    process = os.getpid()
    given_back = time.monotonic()
    with bar, ThreadPoolExecutor(1, "tokenize") as background:

        def submit() -> tuple[Group, Future[TokenizedTexts]] | None:
            """Read a chunk in the thread of the caller, and tokenize it in the other thread."""
            following = next(chunks, None)
            if following is None:
                return None
            group, texts = following
            return group, background.submit(TokenizedTexts.of, model, texts, options)

        pending = submit()
        while pending is not None:
            group, future = pending
            tokenized = future.result()
            pending = submit()
            vectors = tokenized.vectors(model, options, bar.update)
            bar.update(len(tokenized.index) - len(tokenized.rows))
            counts.add(tokenized.counts)
            if pending is not None:
                # The caller may use the tokenizer too, and it is not thread-safe.
                wait([pending[1]])
            if time.monotonic() - given_back > _GIVE_BACK_EVERY:
                return_freed_memory()
                given_back = time.monotonic()
            yield group, vectors.cpu().numpy()
            require_same_process(process, "this stream of vectors")
    counts.say(model.tokenizer, options.max_length)


def _chunks(
    groups: Iterable[tuple[Group, Iterable[str]]], size: int
) -> Iterator[tuple[Group, list[str]]]:
    for group, sentences in groups:
        for texts in grouped(texts_one_by_one(sentences), size, _CHUNK_CHARACTERS):
            yield group, texts
