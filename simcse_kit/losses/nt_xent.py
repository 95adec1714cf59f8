"""NT-Xent, the contrastive loss of SimCLR (arXiv 2002.05709, equation 1)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from simcse_kit.errors import ConfigError
from simcse_kit.losses.chunk_masks import add_to_logits, same_text_changes
from simcse_kit.losses.contrastive_batch import ContrastiveBatch
from simcse_kit.losses.info_nce_chunked import STRIPS_FROM, StripOptions, cross_entropy_in_strips
from simcse_kit.losses.similarity import cosine_matrix, full_precision
from simcse_kit.utils.host_copies import on_both, send_known

__all__ = ["nt_xent"]


def nt_xent(batch: ContrastiveBatch, *, strip: int | None = None) -> Tensor:
    r"""Compare every view with all other views: the mean over the 2N views of

    .. math:: -\log \frac{e^{\cos(z_i, z_{i'})/\tau}}{\sum_{j \ne i} e^{\cos(z_i, z_j)/\tau}}

    where :math:`z_{i'}` is the other view of the same row, so that a view has 2N - 1 candidates.
    If ids are given, other views with the same text as a view or as its other view are excluded
    from its denominator; a view without negatives adds 0. Follows ``add_contrastive_loss`` of
    https://github.com/google-research/simclr/blob/67b562524223e65c0414a15c3bd7ac007d28f629/tf2/objective.py
    except that the mean over both views replaces their sum.

    From 512 x 512 logits on, the loss is computed in strips: the same value and gradients in
    O(N·d) memory (:mod:`simcse_kit.losses.info_nce_chunked`), but no second derivative.

    Args:
        batch: The views as ``anchors`` and ``positives``, (N, d) each, with temperature and ids.
        strip: The number of views in one strip; 0 computes all logits as one matrix. By default,
            chosen by size.

    Raises:
        ConfigError: The batch has ids of one view only, hard negatives, a queue or a guide.

    Examples:
        >>> nt_xent(ContrastiveBatch(torch.eye(4), torch.eye(4), temperature=1.0))
        tensor(1.1654)
    """
    batch.refuse("nt_xent", "hard_negatives", "queue", "guide")
    if (batch.anchor_ids is None) != (batch.positive_ids is None):
        raise ConfigError("nt_xent got ids of one view; give anchor_ids and positive_ids, or none")
    views = torch.cat([batch.anchors, batch.positives])
    row = send_known(torch.arange(len(views)), views.device)
    other = on_both(lambda rows: rows.roll(batch.rows), row)  # the other view of the same row
    ids = None
    if batch.anchor_ids is not None and batch.positive_ids is not None:
        ids = on_both(lambda *parts: torch.cat(parts), batch.anchor_ids, batch.positive_ids)
    if strip == 0 or (strip is None and len(views) ** 2 < STRIPS_FROM):
        left_out = torch.eye(len(views), dtype=torch.bool, device=views.device)
        if ids is not None:
            for text in (ids, ids[other]):
                left_out |= text.unsqueeze(1) == ids.unsqueeze(0)
            left_out[row, other] = False
        logits = (cosine_matrix(views, views) / batch.tau).masked_fill(left_out, -torch.inf)
        with full_precision(views.device):
            return F.cross_entropy(logits, other)
    texts = [] if ids is None else [ids, on_both(torch.Tensor.__getitem__, ids, other)]
    # Any batch has 2 equal texts for each view: the view itself and the other view of its row.
    same = same_text_changes([*texts], [(ids, 0)], expected=2 * len(views))
    options = StripOptions(other, [add_to_logits(row, row, -math.inf), *same], strip=strip)
    return cross_entropy_in_strips(views, views, None, batch.tau, options)[0]
