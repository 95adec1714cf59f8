"""InfoNCE without the positive in its denominator (DCL, arXiv 2110.06848)."""

from __future__ import annotations

import torch
from torch import Tensor

from simcse_kit.losses.contrast import ContrastiveBatch
from simcse_kit.losses.logits import candidate_logits
from simcse_kit.losses.similarity import full_precision

__all__ = ["decoupled_info_nce"]


def decoupled_info_nce(batch: ContrastiveBatch, *, symmetric: bool = False) -> Tensor:
    r"""Decoupled contrastive loss: the mean over anchors of

    .. math:: -\cos(h_i, h_i^+)/\tau + \log \sum_{n \ne i^+} e^{\cos(h_i, h_n)/\tau}

    The loss L_DC of arXiv 2110.06848, section 3. InfoNCE scales the gradient of an anchor by how
    badly its positive does, so that small batches learn little; without the positive in the sum
    that factor is gone. The loss has no lower bound of 0. Memory is that of a few (B, B + B·k)
    matrices.

    The negatives are those of :func:`simcse_kit.losses.info_nce.info_nce`. The paper's are
    those of NT-Xent, both views of all others: :meth:`ContrastiveBatch.both_views` makes that.

    Args:
        batch: anchors, positives, hard negatives, temperature and α.
        symmetric: take the mean of this loss and of the same from positives to anchors, which
            meet the anchors alone.

    Returns:
        A scalar, float32 or wider. An anchor whose negatives are all left out adds 0.
    """
    loss = _one_way(batch)
    return (loss + _one_way(batch.reversed())) / 2 if symmetric else loss


def _one_way(batch: ContrastiveBatch) -> Tensor:
    logits = candidate_logits(batch)
    own = torch.zeros_like(logits, dtype=torch.bool)
    own.diagonal().fill_(True)
    left_out = own | (logits == -torch.inf)
    alone = left_out.all(dim=1, keepdim=True)
    with full_precision(logits.device):
        # A row of nothing but -inf has a NaN gradient, so such rows are filled before.
        mass = logits.masked_fill(left_out, -torch.inf).masked_fill(alone, 0).logsumexp(dim=1)
        return torch.where(alone.squeeze(1), 0, mass - logits.diagonal()).mean()
