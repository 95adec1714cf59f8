"""InfoNCE of predictions: Contrastive Predictive Coding (arXiv 1807.03748)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from simcse_kit.losses.contrastive_batch import ContrastiveBatch
from simcse_kit.losses.info_nce import info_nce
from simcse_kit.losses.logits import same_text
from simcse_kit.losses.similarity import full_precision

__all__ = ["predictive_nce"]


def predictive_nce(
    batch: ContrastiveBatch, *, similarity: Literal["dot", "cosine"] = "dot"
) -> Tensor:
    r"""Identify the target of each prediction among all targets: the mean over rows of

    .. math::
        -\log \frac{f(z_i, c_i)}{\sum_j f(z_j, c_i)}, \quad f(z, c) = e^{s(z, W c) / \tau}

    Equations 3 and 4 of arXiv 1807.03748, where s is the dot product and τ = 1. With the cosine,
    this is :func:`~simcse_kit.losses.info_nce.info_nce`.

    Args:
        batch: The predictions W·c as ``anchors`` and their targets as ``positives``, (N, d) each.
            ``anchor_ids`` are the texts of the contexts.
        similarity: The similarity s, ``"dot"`` or ``"cosine"``.

    Raises:
        ConfigError: The batch has hard negatives, a queue or a guide.

    Examples:
        >>> predictive_nce(ContrastiveBatch(torch.eye(2), torch.eye(2), temperature=1.0))
        tensor(0.3133)
    """
    batch.refuse("predictive_nce", "hard_negatives", "queue", "guide")
    if similarity == "cosine":
        return info_nce(batch).loss
    targets = batch.positives
    own = torch.eye(batch.rows, dtype=torch.bool, device=targets.device)
    excluded = same_text(batch, batch.positive_ids, like=own) & ~own
    with full_precision(targets.device):
        wide = torch.promote_types(batch.anchors.dtype, torch.float32)
        logits = batch.anchors.to(wide) @ targets.to(wide).T / batch.temperature
        logits = logits.masked_fill(excluded, -torch.inf)
        return F.cross_entropy(logits, torch.arange(batch.rows, device=targets.device))
