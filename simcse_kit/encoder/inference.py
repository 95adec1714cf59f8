"""From sentences to token ids, and through the network in batches of like length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from simcse_kit.encoder.batch_plan import length_sorted_batches, pad_batch
from simcse_kit.encoder.forked_processes import PREPARING, TOKENIZING, require_usable, torch_threads
from simcse_kit.encoder.forward_batches import stop_packing
from simcse_kit.encoder.packing.layout import MULTIPLE, pack_rows
from simcse_kit.encoder.packing.row_groups import UnpackableError
from simcse_kit.encoder.packing.run import prepared_blocks
from simcse_kit.encoder.pooling import FIRST_TOKEN_POOLINGS
from simcse_kit.encoder.quantization.layer_cache import Precision, lower_blocks
from simcse_kit.encoder.threads import shared_out
from simcse_kit.encoder.token_counts import count_rows
from simcse_kit.encoder.torch_state import usual_state
from simcse_kit.utils.progress import progress_bar

if TYPE_CHECKING:
    from simcse_kit.encoder.encoder import SentenceEncoder

__all__ = [
    "compute_vectors",
    "evaluation_mode",
    "token_ids",
    "vectors_of_rows",
]

# Tokens of one forward pass. On CPUs larger passes leave the cache and gain nothing.
CPU_TOKEN_BUDGET = 2048
CUDA_TOKEN_BUDGET = 32768
# A job of fewer tokens is one batch, computed by all threads together.
SHARED_TOKENS = 512
# Tokens from which on it pays to lay out the weights anew for oneDNN.
PREPARE_FROM = 8192
# How a bar over sentences looks; short jobs have none.
ENCODE_BAR: dict[str, Any] = {"unit": " sentences", "desc": "encode", "delay": 2}
# Sentences tokenized in one call; the tokenizer's own objects take kilobytes a sentence.
TOKENIZE_AT_ONCE = 8192


def token_ids(tokenizer: Any, texts: Sequence[str], length: int) -> tuple[list[list[int]], int]:
    """Token ids, special tokens included, and how many of the texts were cut to ``length``."""
    rows: list[list[int]] = []
    cut = 0
    for start in range(0, len(texts), TOKENIZE_AT_ONCE):
        part = list(texts[start : start + TOKENIZE_AT_ONCE])
        with TOKENIZING:
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
            with TOKENIZING:
                whole = tokenizer(
                    [part[number] for number in full], truncation=False, verbose=False
                )
            cut += sum(len(row) > length for row in whole["input_ids"])
        # Without special tokens an empty sentence has no token at all, and nothing to pool.
        rows += [row or [tokenizer.pad_token_id] for row in ids]
    return rows, cut


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Dropout off inside; afterwards every submodule is in the mode it was in.

    Several threads may be inside for one module: the last one to leave restores the modes.
    """
    with PREPARING:
        inside = _evaluating.get(module)
        if inside is None:
            training = [part for part in module.modules() if part.training]
            inside = _evaluating[module] = _Evaluating(training)
            if training:
                module.eval()
        inside.threads += 1
    try:
        yield
    finally:
        with PREPARING:
            inside.threads -= 1
            if not inside.threads:
                del _evaluating[module]
                for part in inside.training:
                    part.training = True


@dataclass
class _Evaluating:
    """The submodules that were in training mode, and the threads inside of a module's block."""

    training: list[nn.Module]
    threads: int = 0


_evaluating: WeakKeyDictionary[nn.Module, _Evaluating] = WeakKeyDictionary()


@torch.inference_mode()
def compute_vectors(
    encoder: SentenceEncoder,
    texts: list[str],
    *,
    batch_size: int | None,
    token_budget: int | None,
    max_length: int | None,
    progress: bool,
    precision: Precision,
) -> Tensor:
    """Vectors ``(n, embedding_dim)`` float32 on the encoder's device, in the order of ``texts``."""
    rows, cut = encoder.tokenize(texts, max_length=max_length)
    count_rows(encoder, texts, rows, cut).say(encoder, max_length or encoder.max_length)
    with progress_bar(len(rows), shown=progress, **ENCODE_BAR) as bar:
        return vectors_of_rows(
            encoder,
            rows,
            batch_size=batch_size,
            token_budget=token_budget,
            precision=precision,
            on_done=bar.update,
        )


@torch.inference_mode()
def vectors_of_rows(
    encoder: SentenceEncoder,
    rows: Sequence[Sequence[int]],
    *,
    batch_size: int | None = None,
    token_budget: int | None = None,
    precision: Precision = "fp32",
    on_done: Callable[[int], object] | None = None,
) -> Tensor:
    """Rows of token ids to vectors.

    Args:
        encoder: the encoder; dropout is off inside.
        rows: the token ids of each sentence, as :meth:`SentenceEncoder.tokenize` gives them.
        batch_size: most rows of one pass.
        token_budget: most tokens of one pass.
        precision: in what the linear maps are computed.
        on_done: told of the number of rows of every pass.

    Returns:
        ``(n, embedding_dim)`` float32 on the encoder's device, in the order of ``rows``.
    """
    device = encoder.device
    require_usable(device)
    lengths = [len(row) for row in rows]
    tokens = sum(lengths)
    workers = torch_threads() if device.type == "cpu" else 1
    budget = token_budget or (CPU_TOKEN_BUDGET if device.type == "cpu" else CUDA_TOKEN_BUDGET)
    # Small jobs are shared out evenly, and the smallest left to the threads inside torch.
    if token_budget is None and tokens < workers * budget:
        budget = max(tokens // workers + 1, SHARED_TOKENS)
    batches = list(length_sorted_batches(lengths, token_budget=budget, batch_size=batch_size))
    shape = (len(rows), encoder.embedding_dim)
    vectors = torch.empty(shape, dtype=torch.float32, device=device)
    with evaluation_mode(encoder), usual_state(device):
        run = _Runner(encoder, rows, many=tokens >= PREPARE_FROM, precision=precision)
        for batch, part in shared_out(
            lambda batch: run([rows[n] for n in batch]), batches, workers
        ):
            vectors[batch] = part
            if on_done is not None:
                on_done(len(batch))
    return vectors


class _Runner:
    """One batch of rows to vectors, by whichever way the encoder has.

    Args:
        encoder: the encoder, in evaluation mode.
        rows: all rows that will come.
        many: many batches will come, so that it pays to prepare the weights.
        precision: in what the linear maps are computed.
    """

    def __init__(
        self,
        encoder: SentenceEncoder,
        rows: Sequence[Sequence[int]],
        *,
        many: bool,
        precision: Precision,
    ):
        self.encoder = encoder
        self.blocks = None
        first_only = encoder.pooling in FIRST_TOKEN_POOLINGS
        if precision != "fp32" and rows:
            self.blocks = lower_blocks(encoder, precision, rows, first_only=first_only)
        # Here, and not in one of the threads that share the batches out.
        packs = encoder.packs
        if self.blocks is None and many and packs:
            self.blocks = prepared_blocks(encoder.backbone, first_only=first_only)

    def __call__(self, rows: list[Sequence[int]]) -> Tensor:
        encoder = self.encoder
        if encoder.engine is not None:
            ids, mask = pad_batch(rows, encoder.tokenizer.pad_token_id)
            return torch.from_numpy(encoder.engine.run(ids.numpy(), mask.numpy()))
        if encoder.packs:
            multiple = 1 if self.blocks is None else MULTIPLE
            tokens, layout = pack_rows(rows, encoder.device, multiple=multiple)
            try:
                return encoder.forward_packed(tokens, layout, self.blocks).float()[: len(rows)]
            except UnpackableError as error:
                stop_packing(encoder, error)
        ids, mask = pad_batch(rows, encoder.tokenizer.pad_token_id)
        return encoder.forward(ids.to(encoder.device), mask.to(encoder.device)).float()
