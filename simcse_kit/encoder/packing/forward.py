"""The forward pass of post-norm encoders over packed tokens.

It runs the model's own weights, and computes what the model computes, but for three things that
transformers' code cannot leave out: padding, three products for query, key and value where one
does, and, where only the first token is pooled, the last layer of all other tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from simcse_kit.encoder.packing.attention import block_attention
from simcse_kit.encoder.packing.dropout import Noise, add_dropped
from simcse_kit.encoder.packing.layers import Block
from simcse_kit.encoder.packing.layout import Layout

__all__ = ["embed_tokens", "relative_bias", "run_blocks"]


def embed_tokens(backbone: Any, tokens: Tensor, positions: Tensor) -> Tensor:
    """``(T,)`` ids and positions to the states ``(T, d)`` before the first layer."""
    states = backbone.embeddings(input_ids=tokens[None], position_ids=positions[None])
    if hasattr(backbone, "embeddings_project"):
        states = backbone.embeddings_project(states)
    return cast(Tensor, states[0])


def relative_bias(backbone: Any, layout: Layout, device: torch.device) -> Tensor | None:
    """``(heads, L, L)`` of MPNet, which adds it to the scores of every layer; else None."""
    encoder: Any = getattr(backbone, "encoder", None)
    if not hasattr(encoder, "compute_position_bias"):
        return None
    # It reads the length off the shape of its argument, and nothing else.
    return cast(
        Tensor, encoder.compute_position_bias(torch.empty(1, layout.longest, device=device))[0]
    )


def run_blocks(
    blocks: Sequence[Block],
    states: Tensor,
    layout: Layout,
    *,
    bias: Tensor | None = None,
    all_layers: bool = False,
    first_only: bool = False,
    noise: Noise | None = None,
) -> list[Tensor]:
    """The states after the last layer; or all, those before the first layer in front.

    Args:
        blocks: the layers.
        states: ``(T, d)``.
        layout: where the rows are.
        bias: ``(heads, L, L)`` added to all attention scores.
        all_layers: give the states of all layers.
        first_only: the last layer is computed for the first token of each row alone.
        noise: where the random numbers of dropout come from; a new one if not given.

    Returns:
        ``(T, d)`` each; with ``first_only`` the last is ``(R, d)``, in the order of the layout.
    """
    noise = noise or Noise()
    outputs = [states]
    for number, block in enumerate(blocks):
        firsts = first_only and number == len(blocks) - 1
        after = _run(block, outputs[-1], layout, bias, firsts, noise)
        outputs = [*outputs, after] if all_layers else [after]
    return outputs


def _run(
    block: Block,
    states: Tensor,
    layout: Layout,
    bias: Tensor | None,
    firsts: bool,
    noise: Noise,
) -> Tensor:
    width = states.shape[1]
    inner = layout.firsts(states) if firsts else states
    if firsts:
        ask, answer = block.projections
        query = ask(inner)
        key, value = torch.split(answer(states), width, dim=1)
    else:
        query, key, value = torch.split(block.projections[0](states), width, dim=1)
    heads = (block.heads, width // block.heads)
    mixed = block_attention(
        query.view(-1, *heads),
        key.view(-1, *heads),
        value.view(-1, *heads),
        layout,
        scale=heads[1] ** -0.5,
        dropout=block.probability_dropout,
        noise=noise,
        bias=bias,
    ).flatten(1)
    middle = block.attention_norm(
        add_dropped(inner, block.attention_out(mixed), block.attention_dropout, noise)
    )
    raised = block.up(middle)
    if block.activation is not None:
        raised = block.activation(raised)
    lowered = block.down(raised)
    return cast(
        Tensor, block.output_norm(add_dropped(middle, lowered, block.output_dropout, noise))
    )
