"""Masked language modelling as an auxiliary loss (BERT, arXiv 1810.04805, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["mask_tokens", "masked_lm_loss"]

_TO_MASK = 0.8
_TO_RANDOM = 0.1


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
    special = torch.tensor(list(special_ids), dtype=input_ids.dtype, device=input_ids.device)
    ordinary = attention_mask.bool() & ~torch.isin(input_ids, special)
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
    picked = logits[chosen]
    picked = picked.to(torch.promote_types(picked.dtype, torch.float32))
    total = F.cross_entropy(picked, input_ids[chosen], reduction="sum")
    return total / chosen.sum().clamp_min(1)
