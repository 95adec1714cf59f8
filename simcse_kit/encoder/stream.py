"""Vectors of many sentences in chunks: of streams of any length, and ahead of an accelerator."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simcse_kit.encoder import accelerator
from simcse_kit.encoder.batch_plan import grouped
from simcse_kit.encoder.encode_options import EncodeOptions, check_size
from simcse_kit.encoder.forked_processes import require_same_process
from simcse_kit.encoder.inference import ENCODE_BAR, TokenizedTexts
from simcse_kit.encoder.inputs import texts_one_by_one, whole_number
from simcse_kit.encoder.model import EncoderModel
from simcse_kit.encoder.queued import QueuedEncoding, copy_to_host, require_finite
from simcse_kit.encoder.token_counts import TokenCounts
from simcse_kit.errors import ConfigError
from simcse_kit.utils.host_copies import send
from simcse_kit.utils.process import collection_paused, return_freed_memory
from simcse_kit.utils.progress import progress_bar

__all__ = ["CHUNK", "stream_vectors", "vectors_of_texts"]

CHUNK = 8192
"""Default number of sentences per chunk: enough to make batches of similar length."""

# Number of sentences that are tokenized before an accelerator starts to compute.
_FIRST_CHUNK = 1024
# Sentences may be a million characters long; a chunk also ends after this number of characters.
_CHUNK_CHARACTERS = 8_000_000
# Seconds between two calls; a call after each of many small chunks would cost time.
_GIVE_BACK_EVERY = 5.0

Group = TypeVar("Group")
Part = TypeVar("Part")


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
        groups: Each group with its sentences; read one chunk ahead, two on an accelerator.
        options: How sentences become vectors.
        chunk: Maximum number of sentences per chunk.
        total: Number of sentences of all groups, if known, for the progress bar.
        counts: Statistics to which those of the sentences are added; equal token ids are counted
            within a chunk.

    Yields:
        The group and the vectors ``(rows, d)`` of its next sentences.

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
    copied = partial(copy_to_host, options=options)
    return _stream(model, _chunks(groups, chunk), options, bar, counts, copied)


def vectors_of_texts(
    model: EncoderModel, texts: Sequence[str], options: EncodeOptions, *, to_host: bool
) -> Tensor:
    """Compute the vectors of sentences, and log what tokenizing lost.

    Args:
        model: Encoder.
        texts: Sentences.
        options: Options from :meth:`EncodeOptions.for_model`.
        to_host: Whether many vectors are copied to the host chunk by chunk, so that an accelerator
            need not hold all of them.

    Returns:
        ``(n, d)`` float32 on the host or on the device of the model, in the order of
        ``texts``.
    """
    if accelerator.is_accelerator(model.device) and len(texts) > _FIRST_CHUNK:
        return _in_chunks(model, texts, options, to_host)
    tokenized = TokenizedTexts.of(model, texts, options)
    tokenized.counts.say(model.tokenizer, options.max_length)
    with progress_bar(len(tokenized.rows), shown=options.progress, **ENCODE_BAR) as bar:
        return tokenized.vectors(model, options, bar.update)


@collection_paused()  # token ids are millions of objects without cycles
def _in_chunks(
    model: EncoderModel, texts: Sequence[str], options: EncodeOptions, to_host: bool
) -> Tensor:
    """Compute the vectors of sentences on an accelerator, and tokenize at the same time."""
    places = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    device = torch.device("cpu") if to_host else model.device
    shape = (len(places), options.dimensions(model))
    vectors = torch.empty(shape, dtype=torch.float32, device=device)
    bar = progress_bar(len(places), shown=options.progress, **ENCODE_BAR)
    copied = partial(copy_to_host, options=options)
    deliver = copied if to_host else (lambda part: lambda: part)
    chunks = _growing_chunks(list(places))
    for start, part in _stream(model, chunks, options, bar, TokenCounts(), deliver, seen={}):
        vectors[start : start + len(part)] = torch.from_numpy(part) if to_host else part
    if not to_host:
        require_finite(vectors, options)
    index = torch.tensor([places[text] for text in texts], dtype=torch.int64, device="cpu")
    return vectors[send(index, device)]


def _stream(
    model: EncoderModel,
    chunks: Iterator[tuple[Group, list[str]]],
    options: EncodeOptions,
    bar: Any,
    counts: TokenCounts,
    deliver: Callable[[Tensor], Callable[[], Part]],
    *,
    seen: dict[int, str] | None = None,
) -> Iterator[tuple[Group, Part]]:
    """Compute the vectors of chunks.

    Args:
        deliver: Function of the vectors of a chunk; the function that it returns is called when
            the chunk is needed.
        seen: See :func:`~simcse_kit.encoder.token_counts.count_rows`.
    """
    process = os.getpid()
    given_back = time.monotonic()
    waiting: deque[tuple[Group, Callable[[], Part]]] = deque()
    with bar, ThreadPoolExecutor(1, "tokenize") as background:
        ahead = accelerator.is_accelerator(model.device)
        queue = QueuedEncoding(model, options, bar.update) if ahead else None

        def submit() -> tuple[Group, Future[TokenizedTexts]] | None:
            """Read a chunk in the thread of the caller, and tokenize it in the other thread."""
            following = next(chunks, None)
            if following is None:
                return None
            group, texts = following
            return group, background.submit(TokenizedTexts.of, model, texts, options, seen)

        pending = submit()
        while pending is not None:
            group, future = pending
            tokenized = future.result()
            pending = submit()
            vectors = tokenized.vectors(model, options, bar.update, queue)
            bar.update(len(tokenized.index) - len(tokenized.rows))
            counts.add(tokenized.counts)
            waiting.append((group, deliver(vectors)))
            # An accelerator computes one chunk while the caller uses the chunk before it.
            computed = len(waiting) - (ahead and pending is not None)
            ready = [(group, delivered()) for group, delivered in islice(waiting, computed)]
            if pending is not None:
                # The caller may use the tokenizer too, and it is not thread-safe.
                wait([pending[1]])
            if time.monotonic() - given_back > _GIVE_BACK_EVERY:
                return_freed_memory()
                given_back = time.monotonic()
            for part in ready:
                waiting.popleft()
                yield part
                require_same_process(process, "this stream of vectors")
        if queue is not None:
            queue.finish()
    counts.say(model.tokenizer, options.max_length)


def _chunks(
    groups: Iterable[tuple[Group, Iterable[str]]], size: int
) -> Iterator[tuple[Group, list[str]]]:
    for group, sentences in groups:
        for texts in grouped(texts_one_by_one(sentences), size, _CHUNK_CHARACTERS):
            yield group, texts


def _growing_chunks(texts: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Split sentences, with the place of the first of each chunk; the first chunk is the smallest.

    An accelerator then starts early, and later computes large batches.
    """
    start, size = 0, _FIRST_CHUNK
    while start < len(texts):
        yield start, list(texts[start : start + size])
        start, size = start + size, min(2 * size, CHUNK)
