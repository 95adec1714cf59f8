"""Pooling of token states to one vector per sentence.

Batches are padded on the right, so the first token is at position 0 in every row.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from simcse_kit.encoder.packing.layout import Layout
from simcse_kit.errors import ConfigError
from simcse_kit.registry import closest

__all__ = [
    "FIRST_TOKEN_POOLINGS",
    "HEAD_POOLINGS",
    "LAYER_POOLINGS",
    "POOLINGS",
    "check_pooling",
    "describe_pooling",
    "layer_weights",
    "pool",
    "pool_packed",
    "pooled_width",
]

POOLINGS: dict[str, str] = {
    "cls": "first token, then the kept MLP head (supervised SimCSE)",
    "cls_before_pooler": "first token without a head (unsupervised SimCSE at test time)",
    "mean": "mean of all tokens, special tokens included",
    "max": "maximum over all tokens, per dimension",
    "weighted_mean": "mean of all tokens, weighted by their position from 1 (SGPT)",
    "mean_sqrt_len": "sum of all tokens, divided by the square root of their number",
    "first_last_mean": "mean of layer 1 and the last layer, then mean of all tokens",
    "last_two_mean": "mean of the last two layers, then mean of all tokens",
    "last_token": "last token that is not padding (decoder models)",
    "mask": "mask token of the template that the sentence is put into (PromptBERT)",
    "pooler": "first token, then the model's own pooler (linear and tanh)",
}

# Indices into hidden_states. TRAP: hidden_states[0] is the embedding layer; layer 1 is [1]. The
# SimCSE paper's table used the embedding layer by mistake; its code was fixed later (SimCSE#285).
LAYER_POOLINGS: dict[str, tuple[int, int]] = {"first_last_mean": (1, -1), "last_two_mean": (-2, -1)}
HEAD_POOLINGS = frozenset({"cls", "pooler"})
FIRST_TOKEN_POOLINGS = HEAD_POOLINGS | {"cls_before_pooler"}


# Poolings of token states alone, whose vectors can be concatenated: "mean+max".
_CONCATENABLE = "cls_before_pooler mean max weighted_mean mean_sqrt_len last_token".split()


def check_pooling(name: str) -> str:
    """Return ``name`` if it is a pooling, or several of token states alone joined by ``+``.

    Raises:
        ConfigError: The pooling is unknown; the message lists the poolings.

    Examples:
        >>> check_pooling("cls_before_pooler+mean")
        'cls_before_pooler+mean'
    """
    if isinstance(name, str) and "+" in name:
        for part in name.split("+"):
            if part not in _CONCATENABLE:
                raise ConfigError(
                    f"pooling {name!r}: {part!r} cannot be concatenated; allowed: "
                    f"{', '.join(_CONCATENABLE)}"
                )
        return name
    if not isinstance(name, str):
        raise ConfigError(f"pooling is {name!r}; known: {', '.join(POOLINGS)}")
    if name not in POOLINGS:
        raise ConfigError(
            f"unknown pooling {name!r}{closest(name, list(POOLINGS))}; known: {', '.join(POOLINGS)}"
        )
    return name


def describe_pooling(name: str) -> str:
    """Describe a pooling in a few words."""
    return POOLINGS.get(name) or "the vectors of several poolings, concatenated"


def layer_weights(pooling: str, layers: int) -> list[float]:
    """Express a layer pooling as weights of the hidden states 0 (embeddings) to ``layers``.

    Such weights are the parameter of ``WeightedLayerPooling`` of sentence-transformers:
    https://github.com/UKPLab/sentence-transformers/blob/b778b0d2a3e9195d95fb5a2117263c398f785fd8/sentence_transformers/models/WeightedLayerPooling.py

    Examples:
        >>> layer_weights("first_last_mean", 3)
        [0.0, 1.0, 0.0, 1.0]
    """
    weights = [0.0] * (layers + 1)
    for index in LAYER_POOLINGS[pooling]:
        weights[index] += 1.0
    return weights


def pooled_width(name: str, width: int) -> int:
    """Return the number of dimensions that a pooling makes of token states with ``width``.

    Examples:
        >>> pooled_width("mean+max", 256)
        512
    """
    return width * len(name.split("+"))


def pool(
    name: str,
    hidden_states: Sequence[Tensor],
    attention_mask: Tensor,
    place: int | None = None,
    unpooled: int = 0,
) -> Tensor:
    """Pool token states. The head of ``cls`` and ``pooler`` is applied by the encoder.

    Args:
        name: A pooling, see :func:`check_pooling`.
        hidden_states: Layer outputs, each ``(n, L, d)``. The :data:`LAYER_POOLINGS` need all of
            them, the embedding layer first; the others need the last one.
        attention_mask: ``(n, L)``, 1 for tokens and 0 for padding on the right.
        place: Position of the mask token in each row, from the end if negative; for ``mask``.
        unpooled: Number of tokens of a prompt at the start of each row that are left out. The last
            token of a row is never left out.

    Returns:
        ``(n, d)``; for concatenated poolings ``(n, number of poolings * d)``.
    """
    if "+" in name:
        parts = name.split("+")
        return torch.cat(
            [pool(part, hidden_states, attention_mask, place, unpooled) for part in parts], dim=1
        )
    last = hidden_states[-1]
    if name in FIRST_TOKEN_POOLINGS:
        return last[:, 0]
    if name == "mask" and place is not None and place >= 0:
        return last[:, min(place, last.shape[1] - 1)]
    if name in ("last_token", "mask"):
        from_end = -1 if place is None else place
        # Filler rows of a packed batch may be shorter than a template.
        places = (attention_mask.sum(dim=1) + from_end).clamp_min(0)
        return last[torch.arange(last.shape[0], device=last.device), places]
    if unpooled:
        attention_mask = _without_prompt(attention_mask, unpooled)
    if name == "max":
        return last.masked_fill(attention_mask[..., None] == 0, float("-inf")).amax(dim=1)
    last = _combined(name, hidden_states)
    mask = attention_mask[..., None].to(last.dtype)
    if name == "weighted_mean":
        positions = torch.arange(1, mask.shape[1] + 1, device=mask.device, dtype=mask.dtype)
        mask = mask * positions[:, None]
    count = mask.sum(dim=1)
    return (last * mask).sum(dim=1) / (count.sqrt() if name == "mean_sqrt_len" else count)


def pool_packed(
    name: str,
    states: Sequence[Tensor],
    layout: Layout,
    place: int | None = None,
    unpooled: int = 0,
) -> Tensor:
    """Pool the states of a packed batch.

    Args:
        name: A pooling, see :func:`check_pooling`.
        states: Layer outputs as for :func:`pool`, each ``(T, d)``; for the
            :data:`FIRST_TOKEN_POOLINGS` the last one is ``(R, d)``, the first tokens only.
        layout: Positions of the rows.
        place: As for :func:`pool`.
        unpooled: As for :func:`pool`.

    Returns:
        As :func:`pool`, in the order of the batch.
    """
    if name in FIRST_TOKEN_POOLINGS:
        return layout.to_batch_order(states[-1])
    if layout.index is not None:
        padded = layout.index.pad(_combined(name, states))
        simple = "mean" if name in LAYER_POOLINGS else name
        mask = layout.index.mask.long()
        return layout.to_batch_order(pool(simple, [padded], mask, place, unpooled))
    pooled = []
    for group in zip(*(layout.by_group(state) for state in states), strict=True):
        every = torch.ones(group[0].shape[:2], dtype=torch.int64, device=group[0].device)
        pooled.append(pool(name, group, every, place, unpooled))
    return layout.to_batch_order(torch.cat(pooled))


def _without_prompt(attention_mask: Tensor, tokens: int) -> Tensor:
    """Clear the first tokens of each row in a mask, except the last token of the row."""
    last = attention_mask.sum(dim=1, keepdim=True) - 1
    places = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    return attention_mask * (places >= last.clamp_max(tokens))


def _combined(name: str, hidden_states: Sequence[Tensor]) -> Tensor:
    """Return the last states, or for the :data:`LAYER_POOLINGS` the mean of the two layers."""
    if name not in LAYER_POOLINGS:
        return hidden_states[-1]
    low, high = LAYER_POOLINGS[name]
    return (hidden_states[low] + hidden_states[high]) / 2
