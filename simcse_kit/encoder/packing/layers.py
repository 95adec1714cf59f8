"""Layers of post-norm encoders (BERT and similar), under common names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from simcse_kit.encoder.packing.compiled import Tail, compiled_tail
from simcse_kit.encoder.packing.linear import Linear, LinearMaker
from simcse_kit.encoder.packing.low_rank import is_supported

__all__ = ["Block", "blocks_of"]


@dataclass(frozen=True)
class Block:
    """A layer: attention and feed-forward, each followed by a residual connection and LayerNorm."""

    projections: tuple[Linear, ...]
    """One map to query, key and value; or one to the query, and one to key and value."""
    attention_out: Linear
    attention_norm: nn.LayerNorm
    up: Linear
    activation: Callable[[Tensor], Tensor] | None  # None if `up` applies it
    down: Linear
    output_norm: nn.LayerNorm
    heads: int
    probability_dropout: float
    attention_dropout: float
    output_dropout: float
    tail: Tail | None = None
    """All that follows attention in one function; None if it runs operator by operator."""


@dataclass(frozen=True)
class _Parts:
    """The modules of a layer.

    Attributes:
        attention: Query, key, value, output and LayerNorm.
        feed_forward: Up, activation, down and LayerNorm.
        heads: Number of attention heads.
        dropouts: Dropout of the attention probabilities, after attention and after feed-forward;
            0 in evaluation mode.
    """

    attention: tuple[nn.Linear, nn.Linear, nn.Linear, nn.Linear, nn.LayerNorm]
    feed_forward: tuple[nn.Linear, Callable[[Tensor], Tensor], nn.Linear, nn.LayerNorm]
    heads: int
    dropouts: tuple[float, float, float]

    @property
    def linears(self) -> tuple[nn.Linear, ...]:
        return (*self.attention[:4], self.feed_forward[0], self.feed_forward[2])


def _rate(dropout: nn.Module) -> float:
    return float(getattr(dropout, "p", 0.0)) if dropout.training else 0.0


def _bert(layer: Any) -> _Parts:
    own, after = layer.attention.self, layer.attention.output
    up, down = layer.intermediate, layer.output
    return _Parts(
        (own.query, own.key, own.value, after.dense, after.LayerNorm),
        (up.dense, up.intermediate_act_fn, down.dense, down.LayerNorm),
        own.num_attention_heads,
        (_rate(own.dropout), _rate(after.dropout), _rate(down.dropout)),
    )


def _mpnet(layer: Any) -> _Parts:
    outer, own, up, down = layer.attention, layer.attention.attn, layer.intermediate, layer.output
    return _Parts(
        (own.q, own.k, own.v, own.o, outer.LayerNorm),
        (up.dense, up.intermediate_act_fn, down.dense, down.LayerNorm),
        own.num_attention_heads,
        (_rate(own.dropout), _rate(outer.dropout), _rate(down.dropout)),
    )


def _distilbert(layer: Any) -> _Parts:
    own, ffn = layer.attention, layer.ffn
    return _Parts(
        (own.q_lin, own.k_lin, own.v_lin, own.out_lin, layer.sa_layer_norm),
        (ffn.lin1, ffn.activation, ffn.lin2, layer.output_layer_norm),
        own.n_heads,
        (_rate(own.dropout), 0.0, _rate(ffn.dropout)),
    )


# model_type -> (name of the list of layers, function that reads a layer)
_FAMILIES: dict[str, tuple[str, Callable[[Any], _Parts]]] = {
    "bert": ("encoder.layer", _bert),
    "roberta": ("encoder.layer", _bert),
    "xlm-roberta": ("encoder.layer", _bert),
    "camembert": ("encoder.layer", _bert),
    "electra": ("encoder.layer", _bert),
    "mpnet": ("encoder.layer", _mpnet),
    "distilbert": ("transformer.layer", _distilbert),
}


def blocks_of(
    backbone: Any, make: LinearMaker, *, first_only: bool = False, compiled: bool = False
) -> list[Block] | None:
    """Read the layers of a backbone in order; None if its family is not supported.

    Args:
        backbone: Transformer.
        make: Function that makes a linear map, such as
            :func:`~simcse_kit.encoder.packing.linear.live` or
            :func:`~simcse_kit.encoder.packing.linear.prepared`.
        first_only: Whether the last layer is computed for the first token of each row only.
        compiled: Whether all that follows attention is compiled, in layers with the exact GELU.
    """
    config = backbone.config
    if config.model_type not in _FAMILIES or getattr(config, "is_decoder", False):
        return None
    where, read = _FAMILIES[config.model_type]
    try:
        parts = [read(layer) for layer in backbone.get_submodule(where)]
    except AttributeError:
        return None
    # Other replaced or wrapped layers run in the model's own code.
    if not all(is_supported(linear) for part in parts for linear in part.linears):
        return None
    last = len(parts) - 1
    return [_block(part, make, first_only and n == last, compiled) for n, part in enumerate(parts)]


def _block(parts: _Parts, make: LinearMaker, first_only: bool, compiled: bool) -> Block:
    query, key, value, out, norm = parts.attention
    up, activation, down, last_norm = parts.feed_forward
    exact_gelu = (
        type(activation).__name__ == "GELUActivation" and getattr(activation, "act", None) is F.gelu
    )
    return Block(
        projections=((make(query), make(key, value)) if first_only else (make(query, key, value),)),
        attention_out=make(out),
        attention_norm=norm,
        up=make(up, gelu=exact_gelu),
        activation=None if exact_gelu else activation,
        down=make(down),
        output_norm=last_norm,
        heads=parts.heads,
        probability_dropout=parts.dropouts[0],
        attention_dropout=parts.dropouts[1],
        output_dropout=parts.dropouts[2],
        tail=compiled_tail((out, up, down), (norm, last_norm), parts.dropouts[1:])
        if compiled and exact_gelu and all(type(map_) is nn.Linear for map_ in (out, up, down))
        else None,
    )
