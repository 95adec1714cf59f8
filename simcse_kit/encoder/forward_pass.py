"""The forward pass of one batch of tokenized sentences, without dropout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from simcse_kit.encoder.batch_plan import pad_batch
from simcse_kit.encoder.forked_processes import PREPARING
from simcse_kit.encoder.model import EncoderModel
from simcse_kit.encoder.packing.layers import Block
from simcse_kit.encoder.packing.layout import MULTIPLE, UnpackableError, pack_rows
from simcse_kit.encoder.row_lengths import remember_lengths
from simcse_kit.utils.host_copies import send

__all__ = ["TokenRows", "evaluation_mode", "vectors_of_batch"]

TokenRows = Sequence[Sequence[int]]
"""Token ids of each sentence."""


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


def vectors_of_batch(
    model: EncoderModel, rows: TokenRows, blocks: list[Block] | None, unpooled: int = 0
) -> Tensor:
    """Compute the vectors of one batch.

    Args:
        model: Encoder in evaluation mode.
        rows: Token ids of each sentence, at least one.
        blocks: Layers prepared for inference; None for the model's own.
        unpooled: Number of tokens at the start of each row that are not pooled.

    Returns:
        ``(n, embedding_dim)`` float32 on the device of the model.
    """
    if model.engine is None and model.packs:
        tokens, layout = pack_rows(rows, model.device, multiple=1 if blocks is None else MULTIPLE)
        try:
            vectors = model.forward_packed(tokens, layout, blocks, unpooled)
            return vectors.float()[: len(rows)]
        except UnpackableError as error:
            model.stop_packing(error)
    ids, mask = pad_batch(rows, model.tokenizer.pad_token_id)
    if model.engine is not None:
        return torch.from_numpy(model.engine.run(ids.numpy(), mask.numpy()))
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    mask = remember_lengths(send(mask, model.device), lengths)
    return model.forward(send(ids, model.device), mask, unpooled=unpooled).float()
