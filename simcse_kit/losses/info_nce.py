"""InfoNCE with in-batch negatives, hard negatives and a queue: the loss of SimCSE."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from simcse_kit.losses.chunk_masks import (
    LogitChange,
    add_to_logits,
    exclude_false_negatives,
    same_text_changes,
)
from simcse_kit.losses.contrastive_batch import ContrastiveBatch
from simcse_kit.losses.info_nce_chunked import STRIPS_FROM, StripOptions, cross_entropy_in_strips
from simcse_kit.losses.logits import candidate_logits
from simcse_kit.losses.similarity import full_precision
from simcse_kit.utils.host_copies import host_copy, on_both, send_known

__all__ = ["ContrastiveTerms", "info_nce", "negatives_per_anchor"]


@dataclass(frozen=True)
class ContrastiveTerms:
    """A contrastive loss and the numbers that are logged with it.

    Attributes:
        loss: Scalar with gradient.
        positive_cosine: Scalar without gradient, the mean cosine of anchors and their positives.
        accuracy: Scalar without gradient, the share of anchors whose positive has a higher score
            than every other candidate of their denominator. A tie does not count.
    """

    loss: Tensor
    positive_cosine: Tensor
    accuracy: Tensor

    def logs(self) -> dict[str, float | Tensor]:
        """Return ``contrastive_loss`` (detached), ``positive_cosine`` and ``accuracy``."""
        return {
            "contrastive_loss": self.loss.detach(),
            "positive_cosine": self.positive_cosine,
            "accuracy": self.accuracy,
        }


def info_nce(
    batch: ContrastiveBatch, *, symmetric: bool = False, strip: int | None = None
) -> ContrastiveTerms:
    r"""Compute InfoNCE, the contrastive loss of SimCSE: the mean over anchors of

    .. math::
        -\log \frac{e^{\cos(h_i, h_i^+)/\tau}}
        {\sum_j e^{\cos(h_i, h_j^+)/\tau}
         + \sum_j \sum_m \alpha^{[i=j]} e^{\cos(h_i, h_{jm}^-)/\tau}
         + \sum_q e^{\cos(h_i, k_q)/\tau}}

    The denominator holds all B positives, all B·k hard negatives and all Q keys of the queue.
    Equations 1 and 5 of arXiv 2104.08821 with the weight α of its appendix; the queue is that of
    section 3.2 of arXiv 2109.04380 (ESimCSE). Follows ``cl_forward`` of
    https://github.com/princeton-nlp/SimCSE/blob/206d7aef05aeadc8e6d354dfc8656c9e9521cc64/simcse/models.py

    From 512 x 512 logits on, the loss is computed in strips of anchors. Value and gradients are
    the same in O(B·d) memory (:mod:`simcse_kit.losses.info_nce_chunked`), but there is no second
    derivative.

    Args:
        batch: The embeddings and options, described in :class:`ContrastiveBatch`.
        symmetric: Take the mean of this loss and of the loss from the positives to the anchors.
            In the second direction, a positive is compared with the anchors only. ``accuracy`` is
            that of the first direction.
        strip: The number of anchors in one strip; 0 computes all logits as one matrix. By
            default, chosen by size.

    Returns:
        The loss and the numbers to log. An anchor whose negatives are all
        masked adds 0.

    Examples:
        >>> sentences, paraphrases = torch.eye(3), torch.eye(3)
        >>> info_nce(ContrastiveBatch(sentences, paraphrases, temperature=1.0)).loss
        tensor(0.5514)
        >>> info_nce(ContrastiveBatch(sentences, torch.ones(3, 3))).loss  # collapsed: ln 3
        tensor(1.0986)
    """
    if strip is None and batch.rows * batch.candidates < STRIPS_FROM:
        strip = 0
    terms = _whole(batch) if strip == 0 else _in_strips(batch, strip)
    if symmetric:
        back = batch.reversed()
        other = _whole(back) if strip == 0 else _in_strips(back, strip)
        terms = replace(terms, loss=(terms.loss + other.loss) / 2)
    return terms


def negatives_per_anchor(batch: int, hard_negatives: int = 0) -> int:
    """Count the negatives of one anchor in the denominator of :func:`info_nce`.

    These are the positives of the other rows and the hard negatives of every row, its own
    included: ``(batch - 1) + batch * hard_negatives``.

    Args:
        batch: The number of rows in one forward pass. Gradient accumulation does not increase it.
        hard_negatives: The number of hard negatives in each row.

    Examples:
        >>> negatives_per_anchor(64), negatives_per_anchor(64, hard_negatives=1)
        (63, 127)
    """
    return batch - 1 + batch * hard_negatives


def _whole(batch: ContrastiveBatch) -> ContrastiveTerms:
    logits = candidate_logits(batch)
    scores = logits.detach()
    positive = scores.diagonal()
    rivals = (scores >= positive.unsqueeze(1)).sum(dim=1) - 1
    with full_precision(logits.device):
        loss = F.cross_entropy(logits, torch.arange(batch.rows, device=logits.device))
    return ContrastiveTerms(
        loss=loss,
        positive_cosine=(positive.mean() * batch.tau).detach(),
        accuracy=(rivals == 0).to(scores.dtype).mean(),
    )


def _in_strips(batch: ContrastiveBatch, strip: int | None) -> ContrastiveTerms:
    rows, device = batch.rows, batch.anchors.device
    changes: list[LogitChange] = []
    known = [(batch.positive_ids, 0)]
    present = shown = negatives = None
    filled = rows  # columns so far
    if batch.hard_negatives is not None and batch.negatives:
        negatives = batch.hard_negatives.flatten(0, 1)
        owners = torch.arange(rows).repeat_interleave(batch.negatives)
        ids = None
        if batch.negative_ids is not None:
            ids = on_both(torch.flatten, batch.negative_ids)
        if batch.negative_mask is not None:
            present = host_copy(batch.negative_mask).flatten().nonzero().squeeze(1)
            owners = owners[present]
            present = shown = send_known(present, device)
            ids = None if ids is None else on_both(torch.Tensor.__getitem__, ids, present)
        known.append((ids, filled))
        columns = torch.arange(filled, filled + len(owners), device=device)
        filled += len(owners)
        alpha = batch.hard_negative_alpha
        if alpha != 1.0:
            owners = send_known(owners, device)
            changes.append(add_to_logits(owners, columns, math.log(alpha) if alpha else -math.inf))
    if batch.queue is not None and len(batch.queue):
        known.append((batch.queue_ids, filled))
        if present is not None and negatives is not None:
            keys = torch.arange(len(batch.queue), device=device)
            present = torch.cat([present, len(negatives) + keys])
        negatives = batch.queue if negatives is None else torch.cat([negatives, batch.queue])
    always = 0 if batch.positive_ids is None else rows
    changes += same_text_changes([batch.anchor_ids, batch.positive_ids], known, expected=always)
    if batch.guide is not None:
        hard = batch.guide.hard_negatives if batch.negatives else None
        candidates = batch.guide.positives
        if hard is not None:
            hard = hard.flatten(0, 1)
            candidates = torch.cat([candidates, hard if shown is None else hard[shown]])
        changes.append(exclude_false_negatives(batch.guide, candidates))
    options = StripOptions(torch.arange(rows, device=device), changes, present, strip)
    return ContrastiveTerms(
        *cross_entropy_in_strips(batch.anchors, batch.positives, negatives, batch.tau, options)
    )
