"""Anchors against all candidates as one matrix, for batches small enough to hold it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from simcse_kit.losses.contrast import ContrastiveBatch
from simcse_kit.losses.similarity import cosine_matrix

__all__ = ["candidate_cosines", "candidate_logits"]


def candidate_logits(batch: ContrastiveBatch) -> Tensor:
    """The softmax inputs, (B, B + B·k); -inf where a candidate is left out.

    First the positives, column i being anchor i's own; then the hard negatives row by row, anchor
    i's own in columns B + i·k to B + i·k + k - 1.
    """
    own = torch.eye(batch.rows, dtype=torch.bool, device=batch.anchors.device)
    logits = cosine_matrix(batch.anchors, batch.positives) / batch.tau
    excluded = _same_text(batch, batch.positive_ids, like=own) & ~own
    guide = batch.guide
    if guide is not None:
        excluded = excluded | (guide.too_close(guide.positives) & ~own)
    if batch.hard_negatives is not None and batch.negatives:
        own_block = own.repeat_interleave(batch.negatives, dim=1)
        block = cosine_matrix(batch.anchors, batch.hard_negatives.flatten(0, 1)) / batch.tau
        left_out = _same_text(batch, batch.negative_ids, like=own_block)
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
    return logits.masked_fill(excluded, -torch.inf)


def candidate_cosines(batch: ContrastiveBatch) -> tuple[Tensor, Tensor]:
    """Cosines in the layout of :func:`candidate_logits`, whatever temperature and α are.

    Returns:
        (B, B + B·k) cosines, -inf where a candidate is left out, and bool of the same shape: which
        of them are negatives of the anchor.
    """
    cosines = candidate_logits(batch.plain())
    # Not isfinite(): a NaN must reach the loss, not vanish from it.
    negatives = cosines != -torch.inf
    negatives.diagonal().fill_(False)
    return cosines, negatives


def _same_text(batch: ContrastiveBatch, candidates: Tensor | None, *, like: Tensor) -> Tensor:
    """Bool of the shape of ``like`` (B, N): candidate n is the text of anchor i or its positive."""
    same = torch.zeros_like(like)
    if candidates is not None:
        for ids in (batch.anchor_ids, batch.positive_ids):
            if ids is not None:
                same = same | (ids.unsqueeze(1) == candidates.flatten().unsqueeze(0))
    return same
