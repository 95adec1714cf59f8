"""Augmentations of token ids and input embeddings, as ConSERT has them (arXiv 2105.11741).

All draw from torch's global generator: who restores its state, repeats the augmentation.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["add_noise", "cut_elements", "cut_features", "cut_tokens", "shuffle_tokens"]


def shuffle_tokens(input_ids: Tensor, attention_mask: Tensor, special_ids: Sequence[int]) -> Tensor:
    """The tokens of each row in a random order; special tokens and padding stay in their places.

    Section 3.3 of the paper, "token shuffling". It shuffles the numbers of the positions, which a
    transformer cannot tell from shuffled tokens.

    Args:
        input_ids: (R, L) int64; left as it is.
        attention_mask: (R, L), 0 at padding.
        special_ids: ids that stay where they are.

    Returns:
        (R, L) int64.
    """
    special = torch.tensor(list(special_ids), dtype=input_ids.dtype, device=input_ids.device)
    fixed = ~attention_mask.bool() | torch.isin(input_ids, special)
    places = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
    # What moves comes first: by lot where it is taken from, in order where it is put.
    later = places + 1.0
    taken = torch.where(fixed, later, torch.rand_like(later)).argsort(dim=1)
    put = fixed.to(torch.uint8).argsort(dim=1, stable=True)
    return input_ids.scatter(1, put, input_ids.gather(1, taken))


def cut_tokens(states: Tensor, rate: float) -> Tensor:
    """Token cutoff: int(rate·l) of the l tokens of each row become zero.

    Args:
        states: (r, l, d).
        rate: share, 0 to 1.
    """
    return states.masked_fill(_chosen(states[:, :, 0], rate).unsqueeze(2), 0.0)


def cut_features(states: Tensor, rate: float) -> Tensor:
    """Feature cutoff: int(rate·d) of the d features become zero in all tokens of a row.

    Args:
        states: (r, l, d).
        rate: share, 0 to 1.
    """
    return states.masked_fill(_chosen(states[:, 0], rate).unsqueeze(1), 0.0)


def cut_elements(states: Tensor, rate: float) -> Tensor:
    """The paper's "dropout": int(rate·l·d) single elements of each row become zero.

    Unlike the dropout of a layer it does not scale up what is left.

    Args:
        states: (r, l, d).
        rate: share, 0 to 1.
    """
    return states.masked_fill(_chosen(states.flatten(1), rate).view(states.shape), 0.0)


def add_noise(states: Tensor, deviation: float) -> Tensor:
    """Gaussian noise on every element.

    Args:
        states: (r, l, d).
        deviation: standard deviation of the noise, 0 or more.
    """
    return states + deviation * torch.randn_like(states)


def _chosen(like: Tensor, rate: float) -> Tensor:
    """(r, n) bool: int(rate·n) of each row, drawn without replacement."""
    wanted = int(rate * like.shape[1])
    lots = torch.rand(like.shape, device=like.device)
    return lots.argsort(dim=1).argsort(dim=1) < wanted
