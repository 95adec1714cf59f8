"""Augmentations of token ids and input embeddings, as in ConSERT (arXiv 2105.11741).

States have shape (r, l, d): r rows with l tokens of d features. A rate is a share from 0 to 1. All
functions use the global generator of torch, so that restoring its state repeats an augmentation.
Compare ``_replace_embedding_output``, ``_replace_position_ids`` and ``_cutoff_embeddings`` of
https://github.com/yym6472/ConSERT/blob/8fe79b6d97b840bc4fb4352b715a27acd35bcf58/transformers/modeling_bert.py
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from simcse_kit.methods.common.masking import ordinary_tokens

__all__ = ["add_noise", "cut_elements", "cut_features", "cut_tokens", "shuffle_tokens"]


def shuffle_tokens(input_ids: Tensor, attention_mask: Tensor, special_ids: Sequence[int]) -> Tensor:
    """Shuffle the tokens of each row, except special tokens and padding.

    Section 3.3 of the paper, "token shuffling". The paper shuffles the position ids instead,
    which has the same effect in a transformer.

    Args:
        input_ids: (R, L) int64; not modified.
        attention_mask: (R, L), 0 at padding.
        special_ids: The ids of tokens that keep their positions.

    Returns:
        (R, L) int64.

    Examples:
        >>> ids = torch.tensor([[101, 7, 8, 102]])
        >>> shuffled = shuffle_tokens(ids, torch.ones_like(ids), special_ids=[101, 102])
        >>> shuffled.sort().values.tolist(), shuffled[0, [0, 3]].tolist()
        ([[7, 8, 101, 102]], [101, 102])
    """
    fixed = ~ordinary_tokens(input_ids, attention_mask, special_ids)
    places = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
    # Both sorts put the movable positions first: the sources in random order, the targets in order.
    later = places + 1.0
    taken = torch.where(fixed, later, torch.rand_like(later)).argsort(dim=1)
    put = fixed.to(torch.uint8).argsort(dim=1, stable=True)
    return input_ids.scatter(1, put, input_ids.gather(1, taken))


def cut_tokens(states: Tensor, rate: float) -> Tensor:
    """Set int(rate·l) of the l tokens of each row to zero ("token cutoff")."""
    return states.masked_fill(_chosen(states[:, :, 0], rate).unsqueeze(2), 0.0)


def cut_features(states: Tensor, rate: float) -> Tensor:
    """Set int(rate·d) of the d features of each row to zero in all tokens ("feature cutoff")."""
    return states.masked_fill(_chosen(states[:, 0], rate).unsqueeze(1), 0.0)


def cut_elements(states: Tensor, rate: float) -> Tensor:
    """Set int(rate·l·d) elements of each row to zero (the paper's "dropout").

    Unlike a dropout layer, it does not scale up the remaining elements.
    """
    return states.masked_fill(_chosen(states.flatten(1), rate).view(states.shape), 0.0)


def add_noise(states: Tensor, deviation: float) -> Tensor:
    """Add Gaussian noise with a standard deviation of 0 or more to every element."""
    return states + deviation * torch.randn_like(states)


def _chosen(like: Tensor, rate: float) -> Tensor:
    """Draw int(rate·n) elements of each row without replacement: (r, n) bool."""
    wanted = int(rate * like.shape[1])
    lots = torch.rand(like.shape, device=like.device)
    return lots.argsort(dim=1).argsort(dim=1) < wanted
