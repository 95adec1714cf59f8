"""InfoNCE without the positive in its denominator (DCL, arXiv 2110.06848)."""

from __future__ import annotations

import torch
from torch import Tensor

from simcse_kit.losses.contrastive_batch import ContrastiveBatch
from simcse_kit.losses.logits import candidate_logits
from simcse_kit.losses.similarity import full_precision

__all__ = ["decoupled_info_nce"]


def decoupled_info_nce(batch: ContrastiveBatch, *, symmetric: bool = False) -> Tensor:
    r"""Compute the decoupled contrastive loss: the mean over anchors of

    .. math:: -\cos(h_i, h_i^+)/\tau + \log \sum_{n \ne i^+} e^{\cos(h_i, h_n)/\tau}

    The loss L_DC of section 3 of arXiv 2110.06848. In InfoNCE, the gradient of an anchor is
    multiplied by 1 minus the probability of its positive, so that small batches, whose positives
    are easy to find, learn little. Without the positive in the sum, this factor is gone. The loss
    can be negative; an anchor whose negatives are all excluded adds 0. Memory is a few
    (B, B + B·k) matrices.

    The negatives are those of :func:`~simcse_kit.losses.info_nce.info_nce`. Those of the paper,
    both views of the other rows, are obtained with :meth:`ContrastiveBatch.both_views`; compare
    ``DCL`` in
    https://github.com/raminnakhli/Decoupled-Contrastive-Learning/blob/f876c837e0a5df58fa3cbd511a04369f2b28e7ac/loss/dcl.py

    Args:
        batch: The embeddings and options.
        symmetric: Take the mean of this loss and of the loss from the positives to the anchors,
            in which a positive is compared with the anchors only.

    Examples:
        >>> decoupled_info_nce(ContrastiveBatch(torch.eye(2), torch.eye(2), temperature=0.5))
        tensor(-2.)
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
        # A row of only -inf has a NaN gradient, so such rows are filled first.
        mass = logits.masked_fill(left_out, -torch.inf).masked_fill(alone, 0).logsumexp(dim=1)
        return torch.where(alone.squeeze(1), 0, mass - logits.diagonal()).mean()
