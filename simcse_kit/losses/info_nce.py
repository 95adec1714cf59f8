"""InfoNCE with in-batch and hard negatives, as SimCSE uses it (arXiv 2104.08821)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from simcse_kit.losses.chunk_masks import CellChange, LogWeights, same_text
from simcse_kit.losses.contrast import ContrastiveBatch, negatives_per_anchor
from simcse_kit.losses.false_negatives import Guide, GuidedCandidates
from simcse_kit.losses.info_nce_chunked import TILES_FROM, Contrast, contrast
from simcse_kit.losses.logits import candidate_logits
from simcse_kit.losses.similarity import full_precision

__all__ = [
    "ContrastiveTerms",
    "contrastive_terms",
    "info_nce",
    "info_nce_terms",
    "negatives_per_anchor",
]


@dataclass(frozen=True)
class ContrastiveTerms:
    """A contrastive loss and what is worth logging beside it.

    Attributes:
        loss: scalar, joined to the graph.
        positive_cosine: scalar, detached: mean cosine of an anchor and its positive.
        accuracy: scalar, detached: share of anchors whose positive beats every other candidate
            of their denominator. A tie does not count.
    """

    loss: Tensor
    positive_cosine: Tensor
    accuracy: Tensor

    def logs(self) -> dict[str, float | Tensor]:
        """``contrastive_loss``, detached, ``positive_cosine`` and ``accuracy``."""
        return {
            "contrastive_loss": self.loss.detach(),
            "positive_cosine": self.positive_cosine,
            "accuracy": self.accuracy,
        }


def info_nce(
    anchors: Tensor,
    positives: Tensor,
    hard_negatives: Tensor | None = None,
    *,
    temperature: float | Tensor = 0.05,
    hard_negative_alpha: float = 1.0,
    negative_mask: Tensor | None = None,
    anchor_ids: Tensor | None = None,
    positive_ids: Tensor | None = None,
    negative_ids: Tensor | None = None,
    allow_no_negatives: bool = False,
    symmetric: bool = False,
    guide: Guide | None = None,
) -> Tensor:
    r"""Contrastive loss of SimCSE: the mean over anchors of

    .. math::
        -\log \frac{e^{\cos(h_i, h_i^+)/\tau}}
        {\sum_j e^{\cos(h_i, h_j^+)/\tau}
         + \sum_j \sum_m \alpha^{[i=j]} e^{\cos(h_i, h_{jm}^-)/\tau}}

    Equations 1 and 5 of arXiv 2104.08821, and the weighted form of its appendix with α. The
    denominator holds all B positives and all B·k hard negatives.

    Args:
        anchors: (B, d), any floating type; cosines and softmax are float32 or wider.
        positives: (B, d), row i belongs to anchor i.
        hard_negatives: (B, k, d), row i belongs to anchor i.
        temperature: τ > 0. A tensor of one element may be learned; its sign is the caller's care.
        hard_negative_alpha: α ≥ 0, the weight of an anchor's *own* hard negatives (log α is added
            to the logit, after the division by τ). 1 changes nothing, 0 drops them.
        negative_mask: (B, k) bool, False where a row has no such hard negative.
        anchor_ids: (B,) int64, equal exactly where the texts are equal.
        positive_ids: (B,) int64.
        negative_ids: (B, k) int64. With ids, a candidate that is the same text as anchor i or as
            its positive is left out of anchor i's denominator, so that no sentence is its own
            negative. The true positive always stays. Ids not given are not compared.
        allow_no_negatives: return 0 for a batch of one sentence instead of refusing it.
        symmetric: take the mean of this loss and of the same loss from the positives to the
            anchors. Hard negatives are candidates of the anchors alone: in the second direction
            positive i meets the anchors and nothing else.
        guide: embeddings of the same texts by a second model; a candidate that it finds closer to
            the anchor than the positive is left out of the denominator (arXiv 2402.16829).

    From 512 x 512 logits on, the loss is computed in strips: the same value and gradients in
    O(B·d) memory (:mod:`simcse_kit.losses.info_nce_chunked`), but no second derivative.

    Returns:
        A scalar, float32 or wider. An anchor whose negatives are all masked adds 0.

    Raises:
        ConfigError: shapes that do not fit, τ ≤ 0, α < 0, or no negative at all.
    """
    return info_nce_terms(
        anchors,
        positives,
        hard_negatives,
        temperature=temperature,
        hard_negative_alpha=hard_negative_alpha,
        negative_mask=negative_mask,
        anchor_ids=anchor_ids,
        positive_ids=positive_ids,
        negative_ids=negative_ids,
        allow_no_negatives=allow_no_negatives,
        symmetric=symmetric,
        guide=guide,
    ).loss


def info_nce_terms(
    anchors: Tensor,
    positives: Tensor,
    hard_negatives: Tensor | None = None,
    *,
    temperature: float | Tensor = 0.05,
    hard_negative_alpha: float = 1.0,
    negative_mask: Tensor | None = None,
    anchor_ids: Tensor | None = None,
    positive_ids: Tensor | None = None,
    negative_ids: Tensor | None = None,
    allow_no_negatives: bool = False,
    symmetric: bool = False,
    guide: Guide | None = None,
) -> ContrastiveTerms:
    """The loss of :func:`info_nce` with what is worth logging; arguments and errors are the same.

    With ``symmetric`` the accuracy is that of the direction from anchors to positives.
    """
    batch = ContrastiveBatch(
        anchors,
        positives,
        hard_negatives,
        temperature=temperature,
        hard_negative_alpha=hard_negative_alpha,
        negative_mask=negative_mask,
        anchor_ids=anchor_ids,
        positive_ids=positive_ids,
        negative_ids=negative_ids,
        allow_no_negatives=allow_no_negatives,
        guide=guide,
    )
    return contrastive_terms(batch, symmetric=symmetric)


def contrastive_terms(batch: ContrastiveBatch, *, symmetric: bool = False) -> ContrastiveTerms:
    """:func:`info_nce_terms` of arguments that are checked already."""
    whole = batch.rows * batch.rows * (1 + batch.negatives) < TILES_FROM
    compute = _plain_terms if whole else _tiled_terms
    terms = compute(batch)
    if symmetric:
        terms = replace(terms, loss=(terms.loss + compute(batch.reversed()).loss) / 2)
    return terms


def _plain_terms(batch: ContrastiveBatch) -> ContrastiveTerms:
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


def _tiled_terms(batch: ContrastiveBatch, strip: int | None = None) -> ContrastiveTerms:
    rows, negatives = batch.rows, batch.negatives
    number = torch.arange(rows, device=batch.anchors.device)
    changes: list[CellChange] = []
    known = [(batch.positive_ids, number)]
    present = flat = None
    if batch.hard_negatives is not None and negatives:
        flat = batch.hard_negatives.flatten(0, 1)
        owners = number.repeat_interleave(negatives)
        ids = None if batch.negative_ids is None else batch.negative_ids.flatten()
        if batch.negative_mask is not None:
            present = batch.negative_mask.flatten().nonzero().squeeze(1)
            owners = owners[present]
            ids = None if ids is None else ids[present]
        columns = rows + torch.arange(len(owners), device=number.device)
        known.append((ids, columns))
        alpha = batch.hard_negative_alpha
        if alpha != 1.0:
            changes.append(LogWeights(owners, columns, math.log(alpha) if alpha else -math.inf))
    always = 0 if batch.positive_ids is None else rows
    changes += same_text([batch.anchor_ids, batch.positive_ids], known, expected=always)
    if batch.guide is not None:
        changes += _guided(batch, batch.guide, present)
    spec = Contrast(number, changes, present, strip)
    return ContrastiveTerms(*contrast(batch.anchors, batch.positives, flat, batch.tau, spec))


def _guided(batch: ContrastiveBatch, guide: Guide, present: Tensor | None) -> list[CellChange]:
    candidates = guide.positives
    if guide.hard_negatives is not None and batch.negatives:
        hard = guide.hard_negatives.flatten(0, 1)
        candidates = torch.cat([candidates, hard if present is None else hard[present]])
    return [GuidedCandidates(guide, candidates)]
