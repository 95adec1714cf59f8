"""NT-Xent, the contrastive loss of SimCLR (arXiv 2002.05709, equation 1)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from simcse_kit.errors import ConfigError
from simcse_kit.losses.chunk_masks import LogWeights, same_text
from simcse_kit.losses.contrast import check_temperature
from simcse_kit.losses.info_nce_chunked import TILES_FROM, Contrast, contrast
from simcse_kit.losses.similarity import cosine_matrix, full_precision

__all__ = ["nt_xent"]


def nt_xent(
    first: Tensor,
    second: Tensor,
    *,
    temperature: float | Tensor = 0.05,
    ids: Tensor | None = None,
    second_ids: Tensor | None = None,
    allow_no_negatives: bool = False,
) -> Tensor:
    r"""Every view against all others: the mean over the 2N views of

    .. math:: -\log \frac{e^{\cos(z_i, z_{i'})/\tau}}{\sum_{j \ne i} e^{\cos(z_i, z_j)/\tau}}

    where :math:`z_{i'}` is the other view of the same item. A view meets 2N - 1 candidates. From
    512 x 512 logits on, the loss is computed in strips: the same value and gradients in O(N·d)
    memory (:mod:`simcse_kit.losses.info_nce_chunked`), but no second derivative.

    Args:
        first: (N, d), any floating type; cosines and softmax are float32 or wider.
        second: (N, d), row i is another view of item i.
        temperature: τ > 0. A tensor of one element may be learned; its sign is the caller's care.
        ids: (N,) int64, equal exactly where the items are equal. With ids, the views of an item's
            copies are left out of its denominator.
        second_ids: (N,) int64, ids of the second views where those are other texts, such as the
            positives of pairs; ``ids`` are then those of the first views. What is the same text as
            a view or as the other view of its item is left out of its denominator.
        allow_no_negatives: return 0 for a batch of one item instead of refusing it.

    Returns:
        A scalar, float32 or wider. A view whose negatives are all left out adds 0.

    Raises:
        ConfigError: shapes that do not fit, τ ≤ 0, or no negative at all.
    """
    if first.dim() != 2 or first.shape[0] == 0 or first.shape != second.shape:
        raise ConfigError(
            "the two views must both have shape (N, d) with N of 1 or more, "
            f"got {tuple(first.shape)} and {tuple(second.shape)}"
        )
    items = first.shape[0]
    for name, given in (("ids", ids), ("second_ids", second_ids)):
        if given is not None and tuple(given.shape) != (items,):
            raise ConfigError(
                f"{name} must have shape {(items,)}, one a row, got {tuple(given.shape)}"
            )
    if ids is None and second_ids is not None:
        raise ConfigError("second_ids were given without ids; give the ids of both views")
    check_temperature(temperature)
    if items == 1 and not allow_no_negatives:
        raise ConfigError(
            "a batch of one item has no negatives: got batch size 1; use a batch size of 2 or more"
        )
    views = torch.cat([first, second])
    tau = temperature.reshape(()) if isinstance(temperature, Tensor) else temperature
    twice = None if ids is None else torch.cat([ids, ids if second_ids is None else second_ids])
    compute = _whole if len(views) ** 2 < TILES_FROM else _in_strips
    return compute(views, tau, twice)


def _other_view(views: Tensor) -> Tensor:
    """(2N,) the row that holds the other view of the same item."""
    return torch.arange(len(views), device=views.device).roll(len(views) // 2)


def _whole(views: Tensor, tau: float | Tensor, ids: Tensor | None) -> Tensor:
    other = _other_view(views)
    left_out = torch.eye(len(views), dtype=torch.bool, device=views.device)
    if ids is not None:
        for asked in (ids, ids[other]):
            left_out |= asked.unsqueeze(1) == ids.unsqueeze(0)
        left_out[torch.arange(len(views)), other] = False
    logits = (cosine_matrix(views, views) / tau).masked_fill(left_out, -torch.inf)
    with full_precision(views.device):
        return F.cross_entropy(logits, other)


def _in_strips(
    views: Tensor, tau: float | Tensor, ids: Tensor | None, strip: int | None = None
) -> Tensor:
    row = torch.arange(len(views), device=views.device)
    always = 2 * len(views)  # a view itself, and the other view of its item
    other = _other_view(views)
    asked = [] if ids is None else [ids, ids[other]]
    same = same_text([*asked], [(ids, row)], expected=always)
    spec = Contrast(other, [LogWeights(row, row, -math.inf), *same], strip=strip)
    return contrast(views, views, None, tau, spec)[0]
