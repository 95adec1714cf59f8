"""Sentences without end to vectors, in bounded memory."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize as unit_length

from simcse_kit.encoder.batch_plan import grouped
from simcse_kit.encoder.forked_processes import require_same_process
from simcse_kit.encoder.inference import ENCODE_BAR, vectors_of_rows
from simcse_kit.encoder.inputs import check_sizes, check_switches, texts_one_by_one, whole_number
from simcse_kit.encoder.quantization.layer_cache import Precision, check_precision
from simcse_kit.encoder.token_counts import TokenCounts, count_rows
from simcse_kit.errors import ConfigError
from simcse_kit.utils.allocator import give_back
from simcse_kit.utils.progress import progress_bar

if TYPE_CHECKING:
    from simcse_kit.encoder.encoder import SentenceEncoder

__all__ = ["CHUNK", "stream_vectors"]

CHUNK = 8192
"""Sentences of a chunk by default: enough of them to make batches of like length."""

# Sentences may be a million characters long; so many characters end a chunk as well.
_CHUNK_CHARACTERS = 8_000_000
# Seconds; after each of many small chunks it would cost time.
_GIVE_BACK_EVERY = 5.0


@dataclass
class _Chunk:
    """Tokenized sentences: the ids of the distinct ones, and which of them each sentence is."""

    rows: list[list[int]]
    counts: TokenCounts
    index: list[int]


def stream_vectors(
    encoder: SentenceEncoder,
    groups: Iterable[Iterable[str]],
    *,
    chunk: int = CHUNK,
    batch_size: int | None = None,
    token_budget: int | None = None,
    normalize: bool | None = None,
    max_length: int | None = None,
    precision: Precision = "fp32",
    progress: bool = False,
    total: int | None = None,
    counts: TokenCounts | None = None,
) -> Iterator[NDArray[np.float32]]:
    """The vectors of groups of sentences, one after the other.

    No chunk holds sentences of two groups, so that the vectors of a group are the same to the bit
    whatever comes before it.

    Args:
        encoder: the encoder.
        groups: each is read when its turn comes, a chunk ahead.
        chunk: this and the others, what is given and what is raised: as for
            :meth:`simcse_kit.encoder.encoder.SentenceEncoder.encode_stream`.
        batch_size: most sentences in one pass.
        token_budget: most tokens in one pass.
        normalize: unit vectors.
        max_length: tokens of a sentence.
        precision: of the linear maps.
        progress: a bar on stderr.
        total: number of sentences of all groups, if known.
        counts: what tokenizing loses is added to these; equal token ids are counted within a
            chunk.
    """
    check_sizes(chunk=chunk, optional=False)
    check_sizes(batch_size=batch_size, token_budget=token_budget)
    check_switches(normalize=normalize, progress=progress)
    if total is not None and (whole_number(total) is None or total < 0):
        raise ConfigError(f"encode(total={total!r}); it must be a number of sentences")
    if max_length is not None:
        encoder.checked_length(max_length)
    check_precision(encoder, precision)
    return _stream(
        encoder,
        (part for group in groups for part in _chunks(group, chunk)),
        max_length=max_length,
        normalize=encoder.normalize if normalize is None else normalize,
        # The mean speed: that of the moment is the length of the moment's sentences, since each
        # chunk begins with its longest.
        bar=progress_bar(total, shown=progress, smoothing=0, **ENCODE_BAR),
        batch_size=batch_size,
        token_budget=token_budget,
        precision=precision,
        counts=TokenCounts() if counts is None else counts,
    )


def _stream(
    encoder: SentenceEncoder,
    chunks: Iterator[list[str]],
    *,
    max_length: int | None,
    normalize: bool,
    bar: Any,
    counts: TokenCounts,
    **sizes: Any,
) -> Iterator[NDArray[np.float32]]:
    process = os.getpid()
    given_back = time.monotonic()

    def tokenized(texts: list[str]) -> _Chunk:
        distinct = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        rows, cut = encoder.tokenize(list(distinct), max_length=max_length)
        counted = count_rows(encoder, list(distinct), rows, cut)
        return _Chunk(rows, counted, [distinct[text] for text in texts])

    with bar, ThreadPoolExecutor(1, "tokenize") as background:
        texts = next(chunks, None)
        pending = None if texts is None else background.submit(tokenized, texts)
        while pending is not None:
            current = pending.result()
            # Read here, tokenized there: what sentences come from may belong to this thread.
            texts = next(chunks, None)
            pending = None if texts is None else background.submit(tokenized, texts)
            vectors = vectors_of_rows(encoder, current.rows, on_done=bar.update, **sizes)
            bar.update(len(current.index) - len(current.rows))
            counts.add(current.counts)
            result = vectors[torch.tensor(current.index, dtype=torch.int64, device=vectors.device)]
            if normalize:
                result = unit_length(result, dim=1)
            if pending is not None:
                # The caller may use the tokenizer too, and it serves one thread at a time.
                wait([pending])
            if time.monotonic() - given_back > _GIVE_BACK_EVERY:
                give_back()
                given_back = time.monotonic()
            yield result.cpu().numpy()
            require_same_process(process, "this stream of vectors")
    counts.say(encoder, max_length or encoder.max_length)


def _chunks(sentences: Iterable[str], size: int) -> Iterator[list[str]]:
    return grouped(texts_one_by_one(sentences), size, _CHUNK_CHARACTERS)
