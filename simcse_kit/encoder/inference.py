"""From sentences to token ids, and through the network in batches of like length."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from simcse_kit.encoder.batching import length_sorted_batches, pad_batch
from simcse_kit.errors import DataError

if TYPE_CHECKING:
    from simcse_kit.encoder.encoder import SentenceEncoder

__all__ = ["checked_texts", "compute_vectors", "evaluation_mode", "token_ids"]

logger = logging.getLogger(__name__)

# Padded tokens of one forward pass. On CPUs larger passes leave the cache and gain nothing.
CPU_TOKEN_BUDGET = 2048
CUDA_TOKEN_BUDGET = 32768
# Sentences tokenized in one call; the tokenizer's own objects take kilobytes a sentence.
TOKENIZE_AT_ONCE = 8192


def checked_texts(sentences: Any) -> list[str]:
    """The sentences as a list.

    Raises:
        DataError: this is no sequence of strings, or a string is not valid Unicode.
    """
    if isinstance(sentences, str):
        sentences = [sentences]
    if not isinstance(sentences, Iterable):
        raise DataError(f"sentences are {type(sentences).__name__}, not a string or a sequence")
    texts = list(sentences)
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            shown = " ".join(repr(text).split())
            raise DataError(f"sentence {number} is {type(text).__name__} {shown:.60}, not a string")
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                raise DataError(
                    f"sentence {number} holds half a surrogate pair: {text!a:.60}; read the file "
                    "as UTF-8"
                ) from None
    return texts


def token_ids(tokenizer: Any, texts: Sequence[str], length: int) -> tuple[list[list[int]], int]:
    """Token ids, special tokens included, and how many of the texts were cut to ``length``."""
    rows: list[list[int]] = []
    cut = 0
    for start in range(0, len(texts), TOKENIZE_AT_ONCE):
        part = list(texts[start : start + TOKENIZE_AT_ONCE])
        encoded = tokenizer(
            part,
            truncation=True,
            max_length=length,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        ids: list[list[int]] = encoded["input_ids"]
        full = [number for number, row in enumerate(ids) if len(row) >= length]
        if tokenizer.is_fast:
            cut += sum(bool(encoded.encodings[number].overflowing) for number in full)
        elif full:
            whole = tokenizer([part[number] for number in full], truncation=False, verbose=False)
            cut += sum(len(row) > length for row in whole["input_ids"])
        # Without special tokens an empty sentence has no token at all, and nothing to pool.
        rows += [row or [tokenizer.pad_token_id] for row in ids]
    return rows, cut


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Dropout off inside; afterwards every submodule is in the mode it was in."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@torch.inference_mode()
def compute_vectors(
    encoder: SentenceEncoder,
    texts: list[str],
    *,
    batch_size: int | None,
    token_budget: int | None,
    max_length: int | None,
    progress: bool,
) -> Tensor:
    """Vectors ``(n, embedding_dim)`` float32 on the encoder's device, in the order of ``texts``."""
    from tqdm import tqdm

    device = encoder.device
    budget = token_budget or (CPU_TOKEN_BUDGET if device.type == "cpu" else CUDA_TOKEN_BUDGET)
    rows, cut = encoder.tokenize(texts, max_length=max_length)
    if cut:
        logger.warning(
            "%d of %d distinct sentences are longer than %d tokens and were cut",
            cut,
            len(texts),
            max_length or encoder.max_length,
        )
    vectors = torch.empty((len(texts), encoder.embedding_dim), device=device)
    bar = tqdm(
        total=len(texts),
        unit=" sentences",
        desc="encode",
        disable=None if progress else True,
        delay=2,
    )
    with evaluation_mode(encoder), bar:
        for batch in length_sorted_batches(
            [len(row) for row in rows], token_budget=budget, batch_size=batch_size
        ):
            ids, mask = pad_batch([rows[n] for n in batch], encoder.tokenizer.pad_token_id)
            vectors[batch] = encoder(ids.to(device), mask.to(device)).float()
            bar.update(len(batch))
    return vectors
