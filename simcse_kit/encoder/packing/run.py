"""Running a backbone on packed batches."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from simcse_kit.encoder.packing.dropout import Noise
from simcse_kit.encoder.packing.forward import embed_tokens, relative_bias, run_blocks
from simcse_kit.encoder.packing.layers import Block, blocks_of
from simcse_kit.encoder.packing.layout import Layout
from simcse_kit.encoder.packing.linear import live, prepared
from simcse_kit.encoder.packing.threaded import Shares, run_shared

__all__ = ["packed_states", "prepared_blocks"]

# Tokens of a batch from which on several threads run it in shares.
SHARED_FROM = 512


def prepared_blocks(backbone: Any, *, first_only: bool) -> list[Block] | None:
    """The layers with their weights laid out for many forward passes without training."""
    return blocks_of(backbone, prepared, first_only=first_only)


def packed_states(
    backbone: Any,
    tokens: Tensor,
    layout: Layout,
    *,
    all_layers: bool = False,
    first_only: bool = False,
    blocks: Sequence[Block] | None = None,
) -> list[Tensor]:
    """Token states of a packed batch.

    Args:
        backbone: a transformer that can, see
            :func:`~simcse_kit.encoder.packing.probe.find_batching`.
        tokens: ``(T,)`` ids.
        layout: where the rows are.
        all_layers: give the states before the first layer and after each; else the last alone.
        first_only: only the first token of each row is wanted; where the family allows it, the
            last layer is computed for those alone.
        blocks: from :func:`prepared_blocks` with the same ``first_only``.

    Returns:
        ``(T, d)`` each; with ``first_only`` the last is ``(R, d)``, in the order of the layout.

    Raises:
        UnpackableError: the model asks its attention for what packed batches do not provide for.
    """
    positions = _positions(backbone, tokens, layout)
    if blocks is None:
        blocks = blocks_of(backbone, live, first_only=first_only)
    if blocks is not None:
        states = embed_tokens(backbone, tokens, positions)
        bias = relative_bias(backbone, layout, tokens.device)
        run = partial(run_blocks, blocks, all_layers=all_layers, first_only=first_only)
        if bias is None and _worth_sharing(backbone, states):
            shares = Shares(layout, torch.get_num_threads())
            noises = [Noise(at_once=True) for _ in shares.layouts]
            return run_shared(
                lambda worker, part, own: run(part, own, noise=noises[worker]),
                states,
                shares,
                [weight for weight in backbone.parameters() if weight.requires_grad],
            )
        return run(states, layout, bias=bias)
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


def _worth_sharing(backbone: Any, states: Tensor) -> bool:
    """Whether a pass is one of training, by several threads, and large enough for that."""
    # TRAP: not only with gradients. Dropout is drawn for each share, and gradient caching makes the
    # same pass without a graph first: both must draw alike.
    return (
        (backbone.training or (torch.is_grad_enabled() and states.requires_grad))
        and states.device.type == "cpu"
        and torch.get_num_threads() > 1
        and len(states) >= SHARED_FROM
        # A setting of the thread, which the others would not have.
        and not torch.is_autocast_enabled("cpu")
    )


def _positions(backbone: Any, tokens: Tensor, layout: Layout) -> Tensor:
    """``(T,)``: the position of every token in its row, as the model itself numbers them."""
    table = getattr(getattr(backbone, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    if padding is None:
        return layout.positions(tokens.device)
    # TRAP: RoBERTa and its kin count from padding_idx + 1, and only tokens that are not padding.
    groups = layout.by_group(tokens != padding)
    count: Tensor = torch.cat([(group.cumsum(1) * group).flatten() for group in groups])
    return count + int(padding)
