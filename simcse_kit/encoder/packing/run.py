"""Forward passes over packed batches.

The layers of the families in :func:`~simcse_kit.encoder.packing.layers.blocks_of` run here, with
the model's own weights and results, but without three costs of transformers' code: padding,
separate products for query, key and value, and, if only the first token is pooled, the last layer
of all other tokens. Other models run their own code, with packed attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from simcse_kit.encoder.packing.attention import block_attention
from simcse_kit.encoder.packing.dropout import Noise, add_dropped
from simcse_kit.encoder.packing.layers import Block, blocks_of
from simcse_kit.encoder.packing.layout import Layout
from simcse_kit.encoder.packing.linear import live, prepared
from simcse_kit.encoder.packing.threaded import Shares, run_shared

__all__ = ["packed_states", "prepared_blocks"]

# Minimum number of tokens of a batch that several threads divide between them.
SHARED_FROM = 512


def prepared_blocks(backbone: Any, *, first_only: bool) -> list[Block] | None:
    """Prepare the layers for many forward passes without training; None for other families."""
    return blocks_of(backbone, prepared, first_only=first_only)


def packed_states(
    backbone: Any,
    tokens: Tensor,
    layout: Layout,
    *,
    all_layers: bool = False,
    first_only: bool = False,
    blocks: Sequence[Block] | None = None,
    compiled: bool = False,
) -> list[Tensor]:
    """Compute the token states of a packed batch.

    Args:
        backbone: Transformer that supports packing, see
            :func:`~simcse_kit.encoder.packing.probe.find_batching`.
        tokens: ``(T,)`` token ids.
        layout: Layout of the rows.
        all_layers: Whether the states before the first layer and after each layer are returned,
            instead of the last states only.
        first_only: Whether only the first token of each row is needed; the known families then
            compute the last layer for these tokens only.
        blocks: Result of :func:`prepared_blocks` with the same ``first_only``.
        compiled: Whether the layers of the known families are compiled, if there are no ``blocks``.

    Returns:
        ``(T, d)`` each; with ``first_only`` the last is ``(R, d)``, in the order of the layout.

    Raises:
        UnpackableError: The model's attention does something that packed batches do not support.
    """
    positions = _positions(backbone, tokens, layout)
    if blocks is None:
        blocks = blocks_of(backbone, live, first_only=first_only, compiled=compiled)
    if blocks is None:
        return _states_of_any_model(backbone, tokens, positions, layout, all_layers, first_only)
    states = _embed(backbone, tokens, positions)
    bias = _relative_bias(backbone, layout, tokens.device)
    run = partial(_run_blocks, blocks, all_layers=all_layers, first_only=first_only)
    if bias is not None or not _worth_sharing(backbone, states):
        return run(states, layout, bias=bias, noise=Noise())
    shares = Shares(layout, torch.get_num_threads())
    noises = [Noise(at_once=True) for _ in shares.layouts]
    return run_shared(
        lambda worker, part, own: run(part, own, noise=noises[worker]),
        states,
        shares,
        [weight for weight in backbone.parameters() if weight.requires_grad],
    )


# ---------------------------------------------------------------- known families


def _embed(backbone: Any, tokens: Tensor, positions: Tensor) -> Tensor:
    """Compute the states ``(T, d)`` before the first layer."""
    states = backbone.embeddings(input_ids=tokens[None], position_ids=positions[None])
    if hasattr(backbone, "embeddings_project"):
        states = backbone.embeddings_project(states)
    return cast(Tensor, states[0])


def _relative_bias(backbone: Any, layout: Layout, device: torch.device) -> Tensor | None:
    """Compute the bias ``(heads, L, L)`` that MPNet adds to all attention scores; else None."""
    encoder: Any = getattr(backbone, "encoder", None)
    if not hasattr(encoder, "compute_position_bias"):
        return None
    # The method reads only the length from the shape of its argument.
    return cast(
        Tensor, encoder.compute_position_bias(torch.empty(1, layout.longest, device=device))[0]
    )


def _run_blocks(
    blocks: Sequence[Block],
    states: Tensor,
    layout: Layout,
    *,
    noise: Noise,
    bias: Tensor | None = None,
    all_layers: bool = False,
    first_only: bool = False,
) -> list[Tensor]:
    """Run all layers on states ``(T, d)``; the result is that of :func:`packed_states`."""
    outputs = [states]
    for number, block in enumerate(blocks):
        firsts = first_only and number == len(blocks) - 1
        after = _run_block(block, outputs[-1], layout, bias, firsts, noise)
        outputs = [*outputs, after] if all_layers else [after]
    return outputs


def _run_block(
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
        to_query, to_key_value = block.projections
        query = to_query(inner)
        key, value = torch.split(to_key_value(states), width, dim=1)
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
    if block.tail is not None:
        return block.tail(inner, mixed)
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


def _worth_sharing(backbone: Any, states: Tensor) -> bool:
    """Whether this is a large forward pass of training on several threads."""
    # TRAP: not only with gradients. Dropout is drawn for each share, and gradient caching runs the
    # same pass without a graph first: both must draw the same numbers.
    return (
        (backbone.training or (torch.is_grad_enabled() and states.requires_grad))
        and states.device.type == "cpu"
        and torch.get_num_threads() > 1
        and len(states) >= SHARED_FROM
        # Autocast is a setting of the calling thread, which the other threads would not have.
        and not torch.is_autocast_enabled("cpu")
    )


# ---------------------------------------------------------------- all models


def _positions(backbone: Any, tokens: Tensor, layout: Layout) -> Tensor:
    """Return the position ids ``(T,)`` as the model numbers them."""
    table = getattr(getattr(backbone, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    if padding is None:
        return layout.positions(tokens.device)
    # TRAP: RoBERTa and similar models count from padding_idx + 1, and skip padding tokens.
    if layout.index is not None:
        present = layout.index.pad(tokens != padding)
        return layout.index.unpad(present.cumsum(1) * present) + int(padding)
    groups = layout.by_group(tokens != padding)
    count: Tensor = torch.cat([(group.cumsum(1) * group).flatten() for group in groups])
    return count + int(padding)


def _states_of_any_model(
    backbone: Any,
    tokens: Tensor,
    positions: Tensor,
    layout: Layout,
    all_layers: bool,
    first_only: bool,
) -> list[Tensor]:
    """Run transformers' code of a model, with packed attention."""
    from simcse_kit.encoder.packing.hf_attention import packed_rows

    options: dict[str, Any] = {"output_hidden_states": all_layers}
    if getattr(backbone.config, "use_cache", False):
        options["use_cache"] = False
    with packed_rows(layout):
        output = backbone(input_ids=tokens[None], position_ids=positions[None], **options)
    found = output.hidden_states if all_layers else [output.last_hidden_state]
    layers = [states[0] for states in found]
    if first_only:
        layers[-1] = layout.firsts(layers[-1])
    return layers
