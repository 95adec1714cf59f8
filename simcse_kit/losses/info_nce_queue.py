"""InfoNCE with a queue of keys as further negatives, as ESimCSE has it (arXiv 2109.04380)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from simcse_kit.errors import ConfigError
from simcse_kit.losses.info_nce import ContrastiveTerms, info_nce_terms

__all__ = ["queued_info_nce"]


def queued_info_nce(
    anchors: Tensor,
    positives: Tensor,
    queue: Tensor,
    *,
    temperature: float | Tensor = 0.05,
    anchor_ids: Tensor | None = None,
    positive_ids: Tensor | None = None,
    queue_ids: Tensor | None = None,
) -> ContrastiveTerms:
    r"""The mean over anchors of

    .. math::
        -\log \frac{e^{\cos(h_i, h_i^+)/\tau}}
        {\sum_j e^{\cos(h_i, h_j^+)/\tau} + \sum_{q=1}^{Q} e^{\cos(h_i, k_q)/\tau}}

    Section 3.2 of arXiv 2109.04380. The queue stands in the denominator alone, and every anchor
    meets all of it.

    Args:
        anchors: (B, d), any floating type; cosines and softmax are float32 or wider.
        positives: (B, d), row i belongs to anchor i.
        queue: (Q, d), Q of 0 or more; gradients flow to it if it asks for them.
        temperature: τ > 0.
        anchor_ids: (B,) int64, equal exactly where the texts are equal.
        positive_ids: (B,) int64.
        queue_ids: (Q,) int64. With ids, a candidate that is the same text as anchor i or as its
            positive is left out of anchor i's denominator.

    Returns:
        The loss, and what is worth logging; a key counts like any other candidate.

    Raises:
        ConfigError: shapes that do not fit, τ ≤ 0, or no negative at all.
    """
    if queue.dim() != 2 or queue.shape[1:] != anchors.shape[1:]:
        raise ConfigError(
            f"queue must have shape (Q, d) to fit anchors of shape {tuple(anchors.shape)}, "
            f"got {tuple(queue.shape)}"
        )
    if queue_ids is not None and queue_ids.shape != queue.shape[:1]:
        raise ConfigError(
            f"queue_ids must have shape {tuple(queue.shape[:1])}, got {tuple(queue_ids.shape)}"
        )
    rows, size = len(anchors), len(queue)
    if not size:
        return info_nce_terms(
            anchors,
            positives,
            temperature=temperature,
            anchor_ids=anchor_ids,
            positive_ids=positive_ids,
        )
    # Hard negatives of all rows are candidates of every anchor, so the queue is dealt out to the
    # rows as such; what is missing to a full block is marked absent.
    width = -(-size // rows)
    missing = rows * width - size
    present = torch.arange(rows * width, device=queue.device) < size
    return info_nce_terms(
        anchors,
        positives,
        F.pad(queue, (0, 0, 0, missing)).view(rows, width, -1),
        temperature=temperature,
        negative_mask=present.view(rows, width),
        anchor_ids=anchor_ids,
        positive_ids=positive_ids,
        negative_ids=None
        if queue_ids is None
        else F.pad(queue_ids, (0, missing)).view(rows, width),
    )
