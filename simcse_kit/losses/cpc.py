"""InfoNCE of predictions: Contrastive Predictive Coding (arXiv 1807.03748)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from simcse_kit.errors import ConfigError
from simcse_kit.losses.contrast import check_temperature
from simcse_kit.losses.info_nce import info_nce
from simcse_kit.losses.similarity import full_precision

__all__ = ["predictive_nce"]


def predictive_nce(
    predictions: Tensor,
    targets: Tensor,
    *,
    similarity: Literal["dot", "cosine"] = "dot",
    temperature: float = 1.0,
    anchor_ids: Tensor | None = None,
    target_ids: Tensor | None = None,
) -> Tensor:
    r"""Find what comes next among what comes next elsewhere: the mean over rows of

    .. math::
        -\log \frac{f(z_i, c_i)}{\sum_j f(z_j, c_i)}, \quad f(z, c) = e^{s(z, W c) / \tau}

    Equations 3 and 4 of arXiv 1807.03748, with s the dot product and τ = 1.

    Args:
        predictions: (N, d), W·c of each context.
        targets: (N, d), row i is what follows context i.
        similarity: ``"dot"``, or ``"cosine"``.
        temperature: τ > 0.
        anchor_ids: (N,) int64, the texts of the contexts; equal exactly where the texts are.
        target_ids: (N,) int64. With ids, a target that is the same text as context i or as its
            own target is no negative of row i.

    Returns:
        A scalar, float32 or wider; 0 for a single row, which has no negatives.

    Raises:
        ConfigError: shapes that do not fit, or τ ≤ 0.
    """
    if similarity == "cosine":
        return info_nce(
            predictions,
            targets,
            temperature=temperature,
            anchor_ids=anchor_ids,
            positive_ids=target_ids,
            allow_no_negatives=True,
        )
    if predictions.dim() != 2 or not len(predictions) or predictions.shape != targets.shape:
        raise ConfigError(
            "predictions and targets must both have shape (N, d) with N of 1 or more, got "
            f"{tuple(predictions.shape)} and {tuple(targets.shape)}"
        )
    check_temperature(temperature)
    own = torch.eye(len(targets), dtype=torch.bool, device=targets.device)
    same = torch.zeros_like(own)
    for ids in (anchor_ids, target_ids):
        if ids is not None and target_ids is not None:
            same = same | (ids.unsqueeze(1) == target_ids.unsqueeze(0))
    with full_precision(targets.device):
        wide = torch.promote_types(predictions.dtype, torch.float32)
        logits = predictions.to(wide) @ targets.to(wide).T / temperature
        logits = logits.masked_fill(same & ~own, -torch.inf)
        return F.cross_entropy(logits, torch.arange(len(targets), device=targets.device))
