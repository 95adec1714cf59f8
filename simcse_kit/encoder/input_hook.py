"""Altering what the first layer of a transformer gets, row by row."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor

from simcse_kit.encoder.packing.layout import Layout, layout_of

__all__ = ["Alter", "altered"]

Alter: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""States (r, l, d) of r rows of l tokens each, none of them padding, and the numbers (r,) of these
rows in the batch, to the altered states (r, l, d). It is called once for each length."""


@contextmanager
def altered(
    backbone: Any, alter: Alter | None, attention_mask: Tensor, layout: Layout | None = None
) -> Iterator[None]:
    """A block in which the forward pass of this thread has its input embeddings altered.

    They are the output of the embedding module: words, positions, LayerNorm and dropout where the
    family has them there; of words alone where it does not.

    Args:
        backbone: the transformer; its forward pass is called once within the block.
        alter: what to do; None does nothing.
        attention_mask: (n, L), 0 at padding.
        layout: how the rows lie end to end, filling last; None where they are padded.
    """
    if alter is None:
        yield
        return
    owner = threading.get_ident()
    rows = len(attention_mask)
    padded = layout is None
    lies = layout or layout_of(attention_mask.sum(dim=1).tolist(), attention_mask.device)

    def hook(_module: Any, _inputs: Any, output: Tensor) -> Tensor | None:
        # Other threads may use the same model meanwhile.
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
        # Filling comes last.
        parts.append((alter(group, numbers) if start <= rows else group).flatten(0, 1))
    return torch.cat(parts)
