"""Logits of anchors and all their candidates as one matrix."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from simcse_kit.losses.contrastive_batch import ContrastiveBatch
from simcse_kit.losses.similarity import cosine_matrix

__all__ = ["candidate_cosines", "candidate_logits", "same_text"]


def candidate_logits(batch: ContrastiveBatch) -> Tensor:
    """Compute the inputs of the softmax as one matrix.

    Returns:
        (B, N) logits, -inf where a candidate is excluded. The first B columns are the positives,
        column i being that of anchor i. The hard negatives follow row by row, those of anchor i
        in columns B + i·k to B + i·k + k - 1, and then the keys of the queue with padding of -inf
        to a multiple of B.

    Examples:
        >>> candidate_logits(ContrastiveBatch(torch.eye(2), torch.eye(2), temperature=0.5))
        tensor([[2., 0.],
                [0., 2.]])
    """
    own = torch.eye(batch.rows, dtype=torch.bool, device=batch.anchors.device)
    logits = cosine_matrix(batch.anchors, batch.positives) / batch.tau
    excluded = same_text(batch, batch.positive_ids, like=own) & ~own
    guide = batch.guide
    if guide is not None:
        excluded = excluded | (guide.too_close(guide.positives) & ~own)
    if batch.hard_negatives is not None and batch.negatives:
        own_block = own.repeat_interleave(batch.negatives, dim=1)
        block = cosine_matrix(batch.anchors, batch.hard_negatives.flatten(0, 1)) / batch.tau
        left_out = same_text(batch, batch.negative_ids, like=own_block)
        if batch.negative_mask is not None:
            left_out = left_out | ~batch.negative_mask.bool().flatten()
        if guide is not None and guide.hard_negatives is not None:
            left_out = left_out | guide.too_close(guide.hard_negatives.flatten(0, 1))
        if batch.hard_negative_alpha == 0.0:
            left_out = left_out | own_block
        elif batch.hard_negative_alpha != 1.0:
            # Not own_block * log(alpha): bool times a float is rounded to the default float32.
            weighted = block + math.log(batch.hard_negative_alpha)
            block = torch.where(own_block, weighted, block)
        logits = torch.cat([logits, block], dim=1)
        excluded = torch.cat([excluded, left_out], dim=1)
    if batch.queue is not None and len(batch.queue):
        # A matrix of another width is summed in another order and rounded differently, so the
        # padding keeps trained weights equal to those of earlier versions.
        missing = -len(batch.queue) % batch.rows
        block = cosine_matrix(batch.anchors, F.pad(batch.queue, (0, 0, 0, missing))) / batch.tau
        left_out = torch.ones_like(block, dtype=torch.bool)
        keys = left_out[:, : len(batch.queue)]
        keys.copy_(same_text(batch, batch.queue_ids, like=keys))
        logits = torch.cat([logits, block], dim=1)
        excluded = torch.cat([excluded, left_out], dim=1)
    return logits.masked_fill(excluded, -torch.inf)


def candidate_cosines(batch: ContrastiveBatch) -> tuple[Tensor, Tensor]:
    """Compute the cosines of all candidates, without temperature and α.

    Returns:
        Cosines in the layout of :func:`candidate_logits`, -inf where a candidate is excluded, and
        a bool tensor of the same shape, True at the negatives of the anchor.
    """
    cosines = candidate_logits(replace(batch, temperature=1.0, hard_negative_alpha=1.0))
    # Not isfinite(): a NaN must reach the loss instead of vanishing from it.
    negatives = cosines != -torch.inf
    negatives.diagonal().fill_(False)
    return cosines, negatives


def same_text(batch: ContrastiveBatch, candidate_ids: Tensor | None, *, like: Tensor) -> Tensor:
    """Find the candidates with the same text as an anchor or as its positive.

    Args:
        batch: The batch with the ids of anchors and positives.
        candidate_ids: The ids of N candidates, any shape; None compares nothing.
        like: (B, N), a tensor of the shape of the result.

    Returns:
        (B, N) bool.
    """
    same = torch.zeros_like(like, dtype=torch.bool)
    if candidate_ids is not None:
        for ids in (batch.anchor_ids, batch.positive_ids):
            if ids is not None:
                same = same | (ids.unsqueeze(1) == candidate_ids.flatten().unsqueeze(0))
    return same
