"""The exported module: token ids to sentence vectors, padded, in standard operators."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from simcse_kit.encoder.model import EncoderModel
from simcse_kit.encoder.pooling import LAYER_POOLINGS, pool
from simcse_kit.encoder.static import StaticTokenization
from simcse_kit.errors import ModelError

__all__ = ["SentenceGraph", "example_batch", "stock_attention"]


class SentenceGraph(nn.Module):
    """Backbone, pooling, head and normalization of an encoder, on padded batches.

    Args:
        encoder: the encoder, whose parts are shared, not copied.

    Raises:
        ModelError: the encoder has static embeddings, or leaves prompts out of its vectors.
    """

    def __init__(self, encoder: EncoderModel):
        super().__init__()
        if isinstance(encoder.tokenization, StaticTokenization):
            raise ModelError(
                "static embeddings are a table and need no graph, so they are not exported; use "
                "their folder, which sentence-transformers opens too"
            )
        if not encoder.include_prompt:
            raise ModelError(
                "this encoder leaves prompts out of its vectors (include_prompt = false), which an "
                "exported graph cannot do; encode without an export"
            )
        self.backbone = encoder.backbone
        self.head = encoder.head
        self.pooling = encoder.pooling
        self.place = None if encoder.template is None else encoder.template.place
        self.normalize = encoder.normalize

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs named by :func:`.base.outputs` for ids and mask, ``(n, L)`` each."""
        layers = self.pooling in LAYER_POOLINGS
        output = self.backbone(
            input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=layers
        )
        states = output.hidden_states if layers else (output.last_hidden_state,)
        vectors = pool(self.pooling, states, attention_mask, self.place)
        if self.head is not None:
            vectors = self.head(vectors)
        return (normalize(vectors, dim=1), vectors) if self.normalize else (vectors,)


def example_batch(encoder: EncoderModel) -> tuple[Tensor, Tensor]:
    """Return ids and mask of three rows of different lengths for tracing.

    No dimension is 1, which tracing would treat as a constant, and some tokens are padding.
    """
    vocabulary = encoder.backbone.get_input_embeddings().num_embeddings
    ids = torch.arange(3 * 9).reshape(3, 9) % vocabulary
    mask = torch.ones_like(ids)
    for row, length in enumerate((9, 5, 3)):
        ids[row, length:] = encoder.tokenizer.pad_token_id
        mask[row, length:] = 0
    return ids, mask


@contextmanager
def stock_attention(encoder: EncoderModel) -> Iterator[None]:
    """Run the backbone with transformers' eager attention inside the block.

    TRAP: in the SDPA graph, OpenVINO gives NaN for a padded position that attends to no token (in
    sliding windows), and ONNX Runtime cannot fuse the guards against it.
    """
    backbone = encoder.backbone
    before = getattr(backbone.config, "_attn_implementation", None)
    cached = getattr(backbone.config, "use_cache", None)
    backbone.set_attn_implementation("eager")
    if cached is not None:
        backbone.config.use_cache = False  # no past keys among the outputs of a decoder
    try:
        yield
    finally:
        if before is not None:
            backbone.set_attn_implementation(before)
        if cached is not None:
            backbone.config.use_cache = cached
