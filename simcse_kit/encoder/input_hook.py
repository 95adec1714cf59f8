"""A hook that changes the input of the first transformer layer, row by row."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor

from simcse_kit.encoder.packing.layout import Layout, layout_of
from simcse_kit.encoder.row_lengths import lengths_of

__all__ = ["Alter", "altered"]

Alter: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Function from the states (r, l, d) of r rows of l tokens without padding, and the numbers (r,) of
these rows in the batch, to the changed states (r, l, d). It is called once per row length."""


@contextmanager
def altered(
    backbone: Any, alter: Alter | None, attention_mask: Tensor, layout: Layout | None = None
) -> Iterator[None]:
    """Change the input embeddings of one forward pass of this thread inside the block.

    The input embeddings are the output of the embedding module: words, positions, LayerNorm and
    dropout if they are in that module of the model family, else words alone.

    Args:
        backbone: Transformer, called once inside the block.
        alter: The change; None for no change.
        attention_mask: (n, L), 0 at padding.
        layout: Positions of the rows of a packed batch, filler rows last; None for a padded batch.
    """
    if alter is None:
        yield
        return
    owner = threading.get_ident()
    rows = len(attention_mask)
    padded = layout is None
    lies = layout or layout_of(lengths_of(attention_mask), attention_mask.device)

    def hook(_module: Any, _inputs: Any, output: Tensor) -> Tensor | None:
        # Other threads may use the same model at the same time.
        if threading.get_ident() != owner:
            return None
        if not padded:
            return _changed(output[0], lies, rows, alter)[None]
        cells = attention_mask[lies.order].bool()
        places = lies.order.unsqueeze(1).expand_as(cells)[cells], cells.nonzero()[:, 1]
        return output.index_put(places, _changed(output[places], lies, rows, alter))

    embeddings = getattr(backbone, "embeddings", None)
    module = embeddings if embeddings is not None else backbone.get_input_embeddings()
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _changed(tokens: Tensor, layout: Layout, rows: int, alter: Alter) -> Tensor:
    parts, start = [], 0
    for group in layout.by_group(tokens):
        numbers = layout.order[start : start + len(group)]
        start += len(group)
        # Filler rows come last and are not changed.
        parts.append((alter(group, numbers) if start <= rows else group).flatten(0, 1))
    return torch.cat(parts)
