"""Vectors of tokenized sentences, computed in length-sorted batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from simcse_kit.encoder import accelerator
from simcse_kit.encoder.batch_plan import length_sorted_batches
from simcse_kit.encoder.device import usual_state
from simcse_kit.encoder.encode_options import EncodeOptions
from simcse_kit.encoder.forked_processes import torch_threads
from simcse_kit.encoder.forward_pass import TokenRows, evaluation_mode, vectors_of_batch
from simcse_kit.encoder.model import EncoderModel
from simcse_kit.encoder.packing.layers import Block
from simcse_kit.encoder.packing.run import prepared_blocks
from simcse_kit.encoder.pooling import FIRST_TOKEN_POOLINGS
from simcse_kit.encoder.quantization.layer_cache import lower_blocks
from simcse_kit.encoder.queued import QueuedEncoding, require_finite
from simcse_kit.encoder.threads import shared_out
from simcse_kit.encoder.token_counts import TokenCounts, count_rows
from simcse_kit.utils.host_copies import send

__all__ = ["ENCODE_BAR", "TokenizedTexts", "evaluation_mode", "layers_of", "vectors_of_rows"]

# Tokens per forward pass. On CPUs larger passes leave the cache and gain nothing.
CPU_TOKEN_BUDGET = 2048
# Fewer tokens than this are one batch, which all torch threads compute together.
SHARED_TOKENS = 512
# Lowest number of tokens at which converting the weights to the layout of oneDNN is faster.
PREPARE_FROM = 8192

ENCODE_BAR: dict[str, Any] = {"unit": " sentences", "desc": "encode", "delay": 2}
"""Appearance of a progress bar over sentences; short jobs show none."""


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
        cls,
        model: EncoderModel,
        texts: Sequence[str],
        options: EncodeOptions,
        seen: dict[int, str] | None = None,
    ) -> TokenizedTexts:
        """Tokenize every distinct sentence once; ``seen`` is that of :func:`count_rows`."""
        distinct = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        rows, cut = model.tokenize(
            list(distinct), max_length=options.max_length, prompt=options.prompt
        )
        counts = count_rows(model, list(distinct), rows, cut, seen, options.prompt)
        return cls(rows, counts, [distinct[text] for text in texts])

    def vectors(
        self,
        model: EncoderModel,
        options: EncodeOptions,
        on_done: Callable[[int], object] | None = None,
        queue: QueuedEncoding | None = None,
    ) -> Tensor:
        """Compute the vectors of all sentences, truncated and normalised as the options say.

        Args:
            model: The model that tokenized the sentences.
            options: Options from :meth:`EncodeOptions.for_model`.
            on_done: Callback, called with the number of distinct sentences after each pass.
            queue: Forward passes on an accelerator, with these options and their own callback;
                the result is then not waited for.

        Returns:
            ``(n, d)`` float32 on the device of the model, in the order of the sentences.
        """
        if queue is None:
            distinct = vectors_of_rows(model, self.rows, options, on_done)
        else:
            distinct = queue.vectors(self.rows)
        index = torch.tensor(self.index, dtype=torch.int64, device="cpu")
        return options.finished(distinct[send(index, distinct.device)])


@torch.inference_mode()
def vectors_of_rows(
    model: EncoderModel,
    rows: TokenRows,
    options: EncodeOptions | None = None,
    on_done: Callable[[int], object] | None = None,
    blocks: list[Block] | None = None,
) -> Tensor:
    """Compute the vectors of tokenized sentences, without dropout and not normalised.

    Args:
        model: Encoder.
        rows: Token ids of each sentence, as :meth:`EncoderModel.tokenize` returns them.
        options: Sizes and precision of the forward passes.
        on_done: Callback, called with the number of rows after each forward pass.
        blocks: Result of :func:`layers_of` for the same model and precision, for programs that
            call this function many times and do not change the weights.

    Returns:
        ``(n, embedding_dim)`` float32 on the device of the model, in the order of ``rows``.
    """
    options = options or EncodeOptions()
    device, unpooled = model.device, model.unpooled(options.prompt)
    if accelerator.is_accelerator(device):
        queue = QueuedEncoding(model, options, on_done)
        vectors = queue.vectors(rows)
        if on_done is not None:
            queue.finish()
        require_finite(vectors, options)
        return vectors
    lengths = [len(row) for row in rows]
    tokens = sum(lengths)
    workers = torch_threads()
    budget = options.token_budget or CPU_TOKEN_BUDGET
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
        if blocks is None:
            blocks = layers_of(model, rows, options, many=tokens >= PREPARE_FROM)
        for batch, part in shared_out(
            lambda batch: vectors_of_batch(
                model, [rows[number] for number in batch], blocks, unpooled
            ),
            batches,
            workers,
        ):
            vectors[batch] = part
            if on_done is not None:
                on_done(len(batch))
    return vectors


def layers_of(
    model: EncoderModel, rows: TokenRows, options: EncodeOptions, *, many: bool
) -> list[Block] | None:
    """Prepare the layers of a model on a CPU for inference; None if its own layers are used.

    Args:
        model: Encoder in evaluation mode.
        rows: Token ids of sentences, which set the ranges of int8.
        options: Precision.
        many: Whether enough sentences follow for preparing the weights in float32 to pay off.
    """
    first_only = model.pooling in FIRST_TOKEN_POOLINGS
    blocks = None
    if options.precision != "fp32" and rows:
        blocks = lower_blocks(model, options.precision, rows, first_only=first_only)
    packs = model.packs  # finds out how batches run
    if blocks is None and many and packs:
        blocks = prepared_blocks(model.backbone, first_only=first_only)
    return blocks
