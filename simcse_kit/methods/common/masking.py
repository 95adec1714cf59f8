"""Masked language modelling as an auxiliary loss (BERT, arXiv 1810.04805, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from simcse_kit.losses.replaced_token import cross_entropy_where
from simcse_kit.utils.host_copies import reads_are_free, send

__all__ = ["mask_tokens", "masked_lm_loss", "ordinary_tokens", "padded_mask"]

# Types whose layers all use one bidirectional mask.
_ONE_MASK = frozenset(
    {"albert", "bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta"}
)

_TO_MASK = 0.8
_TO_RANDOM = 0.1


def ordinary_tokens(
    input_ids: Tensor, attention_mask: Tensor, special_ids: Sequence[int]
) -> Tensor:
    """Find the tokens that are neither special nor padding: (R, L) bool.

    Args:
        input_ids: (R, L) int64.
        attention_mask: (R, L), 0 at padding.
        special_ids: ids of the special tokens.
    """
    ordinary = attention_mask.bool()
    # Not isin(), which sorts a long list of special ids and waits for an accelerator.
    special = send(torch.tensor(list(special_ids), dtype=input_ids.dtype), input_ids.device)
    return ordinary & (input_ids.unsqueeze(-1) != special).all(dim=-1)


def padded_mask(model: Any, attention_mask: Tensor) -> Tensor:
    """Convert a mask to a form that transformers' code uses without reading it on the host.

    On an accelerator, transformers waits for a mask ``(R, L)`` to find out whether it is needed,
    and uses one with four axes as given.

    Args:
        model: transformers model that is called with the mask.
        attention_mask: (R, L), 0 at padding.

    Returns:
        (R, 1, L, L) of the type of the states, 0 at tokens and the lowest number at padding; the
        mask itself on the CPU and for a model whose layers need masks of their own.
    """
    if reads_are_free(attention_mask.device) or model.config.model_type not in _ONE_MASK:
        return attention_mask
    lowest = torch.finfo(model.dtype).min
    wide = torch.zeros_like(attention_mask, dtype=model.dtype)
    wide = wide.masked_fill(attention_mask == 0, lowest)
    return wide[:, None, None, :].expand(-1, 1, attention_mask.shape[1], -1)


def mask_tokens(
    input_ids: Tensor,
    attention_mask: Tensor,
    *,
    mask_id: int,
    special_ids: Sequence[int],
    vocabulary: int,
    probability: float = 0.15,
) -> tuple[Tensor, Tensor]:
    """Choose tokens to predict, and hide them in a copy of the input.

    Of the chosen tokens 80 % become the mask token, 10 % a random token, and 10 % stay. Special
    and padding tokens are never chosen. The random numbers come from torch's global generator.

    Args:
        input_ids: (R, L) int64; not modified.
        attention_mask: (R, L), 0 at padding.
        mask_id: id of the mask token.
        special_ids: ids of the tokens that are never chosen.
        vocabulary: size of the vocabulary that random tokens are drawn from.
        probability: probability of each token to be chosen.

    Returns:
        The modified copy (R, L), and (R, L) bool, True at the chosen tokens.
    """
    ordinary = ordinary_tokens(input_ids, attention_mask, special_ids)
    chosen = ordinary & (torch.rand(input_ids.shape, device=input_ids.device) < probability)
    fate = torch.rand(input_ids.shape, device=input_ids.device)
    random_ids = torch.randint(
        vocabulary, input_ids.shape, dtype=input_ids.dtype, device=input_ids.device
    )
    altered = input_ids.masked_fill(chosen & (fate < _TO_MASK), mask_id)
    swapped = chosen & (fate >= _TO_MASK) & (fate < _TO_MASK + _TO_RANDOM)
    return torch.where(swapped, random_ids, altered), chosen


def masked_lm_loss(logits: Tensor, input_ids: Tensor, chosen: Tensor) -> Tensor:
    """Compute the mean cross entropy over the chosen tokens, in float32 or wider.

    Args:
        logits: (R, L, vocabulary).
        input_ids: (R, L), the original ids.
        chosen: (R, L) bool, the tokens to predict.

    Returns:
        A scalar; 0, still part of the graph, if no token was chosen.
    """
    total = cross_entropy_where(logits, input_ids, chosen, reduction="sum")
    return total / chosen.sum().clamp_min(1)
