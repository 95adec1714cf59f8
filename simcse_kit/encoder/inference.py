"""Vectors of tokenized sentences, computed in length-sorted batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize as unit_length

from simcse_kit.encoder.batch_plan import length_sorted_batches, pad_batch
from simcse_kit.encoder.device import usual_state
from simcse_kit.encoder.encode_options import EncodeOptions
from simcse_kit.encoder.forked_processes import PREPARING, require_usable, torch_threads
from simcse_kit.encoder.model import EncoderModel
from simcse_kit.encoder.packing.layers import Block
from simcse_kit.encoder.packing.layout import MULTIPLE, UnpackableError, pack_rows
from simcse_kit.encoder.packing.run import prepared_blocks
from simcse_kit.encoder.pooling import FIRST_TOKEN_POOLINGS
from simcse_kit.encoder.quantization.layer_cache import lower_blocks
from simcse_kit.encoder.threads import shared_out
from simcse_kit.encoder.token_counts import TokenCounts, count_rows

__all__ = ["ENCODE_BAR", "TokenizedTexts", "evaluation_mode", "vectors_of_rows"]

# Tokens per forward pass. On CPUs larger passes leave the cache and gain nothing.
CPU_TOKEN_BUDGET = 2048
CUDA_TOKEN_BUDGET = 32768
# Fewer tokens than this are one batch, which all torch threads compute together.
SHARED_TOKENS = 512
# Lowest number of tokens at which converting the weights to the layout of oneDNN is faster.
PREPARE_FROM = 8192

ENCODE_BAR: dict[str, Any] = {"unit": " sentences", "desc": "encode", "delay": 2}
"""Appearance of a progress bar over sentences; short jobs show none."""

TokenRows = Sequence[Sequence[int]]
"""Token ids of each sentence."""


@dataclass
class TokenizedTexts:
    """Token ids of the distinct sentences among some sentences.

    Attributes:
        rows: Token ids of each distinct sentence.
        counts: Statistics of what tokenizing lost.
        index: For each sentence the number of its row.
    """

    rows: list[list[int]]
    counts: TokenCounts
    index: list[int]

    @classmethod
    def of(
        cls, model: EncoderModel, texts: Sequence[str], options: EncodeOptions
    ) -> TokenizedTexts:
        """Tokenize every distinct sentence once."""
        distinct = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        rows, cut = model.tokenize(list(distinct), max_length=options.max_length)
        counts = count_rows(model, list(distinct), rows, cut)
        return cls(rows, counts, [distinct[text] for text in texts])

    def vectors(
        self,
        model: EncoderModel,
        options: EncodeOptions,
        on_done: Callable[[int], object] | None = None,
    ) -> Tensor:
        """Compute the vectors of all sentences, normalised if the options say so.

        Args:
            model: The model that tokenized the sentences.
            options: Options from :meth:`EncodeOptions.for_model`.
            on_done: Callback, called with the number of distinct sentences after each pass.

        Returns:
            ``(n, embedding_dim)`` float32 on the device of the model, in the order of the
            sentences.
        """
        distinct = vectors_of_rows(model, self.rows, options, on_done)
        vectors = distinct[torch.tensor(self.index, dtype=torch.int64, device=distinct.device)]
        return unit_length(vectors, dim=1) if options.normalize else vectors


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode inside the block and restore the modes afterwards.

    Several threads may use the block for one module at a time; the last one restores the modes.
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
    """The submodules that were in training mode, and the number of threads inside the block."""

    training: list[nn.Module]
    threads: int = 0


_evaluating: WeakKeyDictionary[nn.Module, _Evaluating] = WeakKeyDictionary()


@torch.inference_mode()
def vectors_of_rows(
    model: EncoderModel,
    rows: TokenRows,
    options: EncodeOptions | None = None,
    on_done: Callable[[int], object] | None = None,
) -> Tensor:
    """Compute the vectors of tokenized sentences, without dropout and not normalised.

    Args:
        model: Encoder.
        rows: Token ids of each sentence, as :meth:`EncoderModel.tokenize` returns them.
        options: Sizes and precision of the forward passes.
        on_done: Callback, called with the number of rows after each forward pass.

    Returns:
        ``(n, embedding_dim)`` float32 on the device of the model, in the order of ``rows``.
    """
    options = options or EncodeOptions()
    device = model.device
    require_usable(device)
    lengths = [len(row) for row in rows]
    tokens = sum(lengths)
    workers = torch_threads() if device.type == "cpu" else 1
    budget = options.token_budget or (
        CPU_TOKEN_BUDGET if device.type == "cpu" else CUDA_TOKEN_BUDGET
    )
    # Small jobs are divided evenly among the threads, and the smallest left to torch's own threads.
    if options.token_budget is None and tokens < workers * budget:
        budget = max(tokens // workers + 1, SHARED_TOKENS)
    batches = list(
        length_sorted_batches(lengths, token_budget=budget, batch_size=options.batch_size)
    )
    shape = (len(rows), model.embedding_dim)
    vectors = torch.empty(shape, dtype=torch.float32, device=device)
    with evaluation_mode(model), usual_state(device):
        # Prepared here, and not in one of the threads that share the batches.
        blocks = _blocks(model, rows, options, many=tokens >= PREPARE_FROM)
        for batch, part in shared_out(
            lambda batch: _run(model, [rows[number] for number in batch], blocks), batches, workers
        ):
            vectors[batch] = part
            if on_done is not None:
                on_done(len(batch))
    return vectors


def _blocks(
    model: EncoderModel, rows: TokenRows, options: EncodeOptions, *, many: bool
) -> list[Block] | None:
    """Prepare the layers for inference; None if the model's own layers are used."""
    first_only = model.pooling in FIRST_TOKEN_POOLINGS
    blocks = None
    if options.precision != "fp32" and rows:
        blocks = lower_blocks(model, options.precision, rows, first_only=first_only)
    packs = model.packs  # finds out how batches run
    if blocks is None and many and packs:
        blocks = prepared_blocks(model.backbone, first_only=first_only)
    return blocks


def _run(model: EncoderModel, rows: TokenRows, blocks: list[Block] | None) -> Tensor:
    """Compute the vectors of one batch, ``(n, embedding_dim)`` float32."""
    if model.engine is None and model.packs:
        tokens, layout = pack_rows(rows, model.device, multiple=1 if blocks is None else MULTIPLE)
        try:
            return model.forward_packed(tokens, layout, blocks).float()[: len(rows)]
        except UnpackableError as error:
            model.stop_packing(error)
    ids, mask = pad_batch(rows, model.tokenizer.pad_token_id)
    if model.engine is not None:
        return torch.from_numpy(model.engine.run(ids.numpy(), mask.numpy()))
    return model.forward(ids.to(model.device), mask.to(model.device)).float()
