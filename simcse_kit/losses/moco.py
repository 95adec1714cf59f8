"""The loss of MoCo: queries, their keys, and a queue of keys (arXiv 1911.05722)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from simcse_kit.errors import ConfigError
from simcse_kit.losses.contrastive_batch import ContrastiveBatch
from simcse_kit.losses.info_nce import ContrastiveTerms
from simcse_kit.losses.logits import same_text
from simcse_kit.losses.similarity import cosine_matrix, full_precision, unit_rows

__all__ = ["momentum_contrast"]


def momentum_contrast(batch: ContrastiveBatch) -> ContrastiveTerms:
    r"""Compare each query with its key and with the queue: the mean over queries of

    .. math::
        -\log \frac{e^{\cos(q, k_+)/\tau}}
        {e^{\cos(q, k_+)/\tau} + \sum_{i=1}^{K} e^{\cos(q, k_i)/\tau}}

    Equation 1 of arXiv 1911.05722 with one positive and the K keys of the queue. The keys of the
    other rows are not candidates; :func:`~simcse_kit.losses.info_nce.info_nce` includes them.
    Follows ``MoCo.forward`` of
    https://github.com/facebookresearch/moco/blob/7397dfe146c7ca6bbb58e9c382498069178ba764/moco/builder.py

    Args:
        batch: The queries as ``anchors`` and their keys as ``positives``, (B, d) each, with a
            ``queue`` (K, d) of 1 key or more. The temperature of the paper is 0.07.

    Returns:
        The loss and the numbers to log. A query whose queue is all excluded adds 0.

    Raises:
        ConfigError: The queue is empty, or the batch has hard negatives or a guide.

    Examples:
        >>> batch = ContrastiveBatch(torch.eye(2), torch.eye(2), queue=-torch.eye(2))
        >>> momentum_contrast(batch).accuracy
        tensor(1.)
    """
    batch.refuse("momentum_contrast", "hard_negatives", "guide")
    if batch.queue is None or not len(batch.queue):
        raise ConfigError(
            "momentum_contrast got an empty queue; give 1 key or more, or use info_nce, "
            "whose negatives include the keys of the other rows"
        )
    with full_precision(batch.anchors.device):
        own = (unit_rows(batch.anchors) * unit_rows(batch.positives)).sum(dim=1, keepdim=True)
        others = cosine_matrix(batch.anchors, batch.queue)
        others = others.masked_fill(same_text(batch, batch.queue_ids, like=others), -torch.inf)
        logits = torch.cat([own, others], dim=1) / batch.tau
        first = torch.zeros(batch.rows, dtype=torch.int64, device=logits.device)
        loss = F.cross_entropy(logits, first)
    return ContrastiveTerms(
        loss=loss,
        positive_cosine=own.detach().mean(),
        accuracy=(own > others).all(dim=1).to(own.dtype).mean(),
    )
