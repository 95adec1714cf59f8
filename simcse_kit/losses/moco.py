"""The loss of MoCo: a query, its key, and a queue of keys (arXiv 1911.05722)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from simcse_kit.errors import ConfigError
from simcse_kit.losses.contrast import check_temperature
from simcse_kit.losses.info_nce import ContrastiveTerms
from simcse_kit.losses.similarity import cosine_matrix, full_precision, unit_rows

__all__ = ["momentum_contrast"]


def momentum_contrast(
    queries: Tensor,
    keys: Tensor,
    queue: Tensor,
    *,
    temperature: float | Tensor = 0.07,
    query_ids: Tensor | None = None,
    key_ids: Tensor | None = None,
    queue_ids: Tensor | None = None,
) -> ContrastiveTerms:
    r"""The mean over queries of

    .. math::
        -\log \frac{e^{\cos(q, k_+)/\tau}}
        {e^{\cos(q, k_+)/\tau} + \sum_{i=1}^{K} e^{\cos(q, k_i)/\tau}}

    Equation 1 of arXiv 1911.05722: one positive and the K keys of the queue. The keys of the other
    rows of the batch are no candidates;
    :func:`~simcse_kit.losses.info_nce_queue.queued_info_nce` has those too.

    Args:
        queries: (B, d), any floating type; cosines and softmax are float32 or wider.
        keys: (B, d), row i belongs to query i.
        queue: (K, d), K of 1 or more.
        temperature: τ > 0.
        query_ids: (B,) int64, equal exactly where the texts are equal.
        key_ids: (B,) int64.
        queue_ids: (K,) int64. With ids, a key in the queue that is of the same text as query i or
            as its key is left out of query i's denominator. Ids not given are not compared.

    Returns:
        The loss, and what is worth logging. A query whose queue is all left out adds 0.

    Raises:
        ConfigError: shapes that do not fit, τ ≤ 0, or an empty queue.
    """
    if queries.dim() != 2 or not len(queries) or queries.shape != keys.shape:
        raise ConfigError(
            "queries and keys must both have shape (B, d) with B of 1 or more, "
            f"got {tuple(queries.shape)} and {tuple(keys.shape)}"
        )
    if queue.dim() != 2 or not len(queue) or queue.shape[1] != queries.shape[1]:
        raise ConfigError(
            f"queue must have shape (K, d) with K of 1 or more to fit queries of shape "
            f"{tuple(queries.shape)}, got {tuple(queue.shape)}"
        )
    for name, ids, rows in (
        ("query_ids", query_ids, len(queries)),
        ("key_ids", key_ids, len(keys)),
        ("queue_ids", queue_ids, len(queue)),
    ):
        if ids is not None and tuple(ids.shape) != (rows,):
            raise ConfigError(f"{name} must have shape {(rows,)}, got {tuple(ids.shape)}")
    check_temperature(temperature)
    tau = temperature.reshape(()) if isinstance(temperature, Tensor) else temperature
    with full_precision(queries.device):
        own = (unit_rows(queries) * unit_rows(keys)).sum(dim=1, keepdim=True)
        others = cosine_matrix(queries, queue)
        for ids in (query_ids, key_ids):
            if ids is not None and queue_ids is not None:
                others = others.masked_fill(ids.unsqueeze(1) == queue_ids, -torch.inf)
        logits = torch.cat([own, others], dim=1) / tau
        first = torch.zeros(len(queries), dtype=torch.int64, device=queries.device)
        loss = F.cross_entropy(logits, first)
    return ContrastiveTerms(
        loss=loss,
        positive_cosine=own.detach().mean(),
        accuracy=(own > others).all(dim=1).to(own.dtype).mean(),
    )
