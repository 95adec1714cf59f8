"""Sentences without end to vectors, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize as unit_length

from simcse_kit.encoder.inference import (
    checked_texts,
    progress_bar,
    vectors_of_rows,
    warn_of_cut,
)

if TYPE_CHECKING:
    from simcse_kit.encoder.encoder import SentenceEncoder

__all__ = ["CHUNK", "stream_vectors"]

CHUNK = 8192
"""Sentences of a chunk by default: enough of them to make batches of like length."""

# Sentences may be a million characters long; so many characters end a chunk as well.
_CHUNK_CHARACTERS = 8_000_000


@dataclass
class _Chunk:
    """Tokenized sentences: the ids of the distinct ones, and which of them each sentence is."""

    rows: list[list[int]]
    cut: int
    index: list[int]


def stream_vectors(
    encoder: SentenceEncoder,
    groups: Iterable[Iterable[str]],
    *,
    chunk: int,
    max_length: int | None,
    normalize: bool,
    progress: bool,
    total: int | None,
    **sizes: Any,
) -> Iterator[NDArray[np.float32]]:
    """See :meth:`simcse_kit.encoder.encoder.SentenceEncoder.encode_groups`."""
    chunks = (part for group in groups for part in _chunks(group, chunk))
    seen = cut = 0

    def tokenized(texts: list[str]) -> _Chunk:
        distinct = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        rows, cut = encoder.tokenize(list(distinct), max_length=max_length)
        return _Chunk(rows, cut, [distinct[text] for text in texts])

    bar = progress_bar(total, shown=progress)
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
            seen, cut = seen + len(current.rows), cut + current.cut
            result = vectors[torch.tensor(current.index)]
            if normalize:
                result = unit_length(result, dim=1)
            if pending is not None:
                # The caller may use the tokenizer too, and it serves one thread at a time.
                wait([pending])
            yield result.cpu().numpy()
    warn_of_cut(cut, seen, max_length or encoder.max_length)


def _chunks(sentences: Iterable[str], size: int) -> Iterator[list[str]]:
    """Lists of at most ``size`` checked sentences and not many more than 8 million characters."""
    texts: list[str] = []
    characters = 0
    for number, sentence in enumerate(sentences):
        texts += checked_texts([sentence], first=number)
        characters += len(sentence)
        if len(texts) >= size or characters >= _CHUNK_CHARACTERS:
            yield texts
            texts, characters = [], 0
    if texts:
        yield texts
