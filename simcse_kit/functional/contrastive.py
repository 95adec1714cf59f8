"""InfoNCE with in-batch and hard negatives, as SimCSE uses it (arXiv 2104.08821)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from simcse_kit.errors import ConfigError
from simcse_kit.functional.similarity import cosine_matrix, full_precision

__all__ = ["diagonal_cross_entropy", "info_nce", "info_nce_logits", "negatives_per_anchor"]


def negatives_per_anchor(batch: int, hard_negatives: int = 0) -> int:
    """How many negatives one anchor meets in the denominator.

    The positives of the other rows and the hard negatives of every row, its own among them:
    ``(batch - 1) + batch * hard_negatives``.

    Args:
        batch: rows in one forward pass. Gradient accumulation does not enlarge it.
        hard_negatives: hard negatives in each row.
    """
    return batch - 1 + batch * hard_negatives


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

    Returns:
        A scalar, float32 or wider. An anchor whose negatives are all masked adds 0.

    Raises:
        ConfigError: shapes that do not fit, τ ≤ 0, α < 0, or no negative at all.
    """
    return diagonal_cross_entropy(
        info_nce_logits(
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
        )
    )


def diagonal_cross_entropy(logits: Tensor) -> Tensor:
    """Mean cross entropy where the right class of row i is column i.

    Args:
        logits: (B, N) with N ≥ B; -inf leaves a candidate out.
    """
    with full_precision(logits.device):
        return F.cross_entropy(logits, torch.arange(logits.shape[0], device=logits.device))


def info_nce_logits(
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
) -> Tensor:
    """The softmax inputs of :func:`info_nce`; arguments and errors are the same.

    Returns:
        (B, B + B·k): first the positives, column i being anchor i's own; then the hard negatives
        row by row, anchor i's own in columns B + i·k to B + i·k + k - 1. -inf where left out.
    """
    rows, negatives = _check_shapes(
        anchors, positives, hard_negatives, negative_mask, anchor_ids, positive_ids, negative_ids
    )
    _check_scalars(temperature, hard_negative_alpha)
    if negatives_per_anchor(rows, negatives) == 0 and not allow_no_negatives:
        raise ConfigError(
            "a batch of one sentence has no negatives: got batch size 1 and no hard negatives; "
            "use a batch size of 2 or more, and drop a last batch of one row"
        )
    own = torch.eye(rows, dtype=torch.bool, device=anchors.device)
    logits = cosine_matrix(anchors, positives) / temperature
    excluded = _same_text(positive_ids, anchor_ids, positive_ids, like=own) & ~own
    if hard_negatives is not None and negatives:
        own_block = own.repeat_interleave(negatives, dim=1)
        block = cosine_matrix(anchors, hard_negatives.flatten(0, 1)) / temperature
        left_out = _same_text(negative_ids, anchor_ids, positive_ids, like=own_block)
        if negative_mask is not None:
            left_out = left_out | ~negative_mask.bool().flatten()
        if hard_negative_alpha == 0.0:
            left_out = left_out | own_block
        elif hard_negative_alpha != 1.0:
            # Not own_block * log(alpha): bool times a float is rounded to the default float32.
            block = torch.where(own_block, block + math.log(hard_negative_alpha), block)
        logits = torch.cat([logits, block], dim=1)
        excluded = torch.cat([excluded, left_out], dim=1)
    return logits.masked_fill(excluded, -torch.inf)


def _same_text(candidates: Tensor | None, *queries: Tensor | None, like: Tensor) -> Tensor:
    """Bool of the shape of ``like`` (B, N): candidate n has an id that a query has in row i."""
    same = torch.zeros_like(like)
    if candidates is not None:
        for ids in queries:
            if ids is not None:
                same = same | (ids.unsqueeze(1) == candidates.flatten().unsqueeze(0))
    return same


def _check_scalars(temperature: float | Tensor, alpha: float) -> None:
    if isinstance(temperature, Tensor):
        # Reading the value of a tensor on an accelerator would stop the pipeline at every step.
        if temperature.numel() != 1:
            shape = tuple(temperature.shape)
            raise ConfigError(f"temperature must hold one number, got a tensor of shape {shape}")
    elif not (math.isfinite(temperature) and temperature > 0):
        raise ConfigError(f"temperature must be above 0, got {temperature}; the paper uses 0.05")
    if not (math.isfinite(alpha) and alpha >= 0):
        raise ConfigError(
            f"hard_negative_alpha must be 0 or more, got {alpha}; it is the weight itself, "
            "not its logarithm: 1 leaves hard negatives as they are, 0 drops an anchor's own"
        )


def _check_shapes(
    anchors: Tensor,
    positives: Tensor,
    hard_negatives: Tensor | None,
    negative_mask: Tensor | None,
    anchor_ids: Tensor | None,
    positive_ids: Tensor | None,
    negative_ids: Tensor | None,
) -> tuple[int, int]:
    """B and k, after everything was found to fit them."""
    if anchors.dim() != 2 or anchors.shape[0] == 0:
        raise ConfigError(
            f"anchors must have shape (B, d) with B of 1 or more, got {tuple(anchors.shape)}"
        )
    rows, dim = anchors.shape
    negatives = 0
    if hard_negatives is not None:
        if hard_negatives.dim() != 3:
            raise ConfigError(
                f"hard_negatives must have shape (B, k, d), got {tuple(hard_negatives.shape)}"
            )
        negatives = hard_negatives.shape[1]
    else:
        for name, given in (("negative_mask", negative_mask), ("negative_ids", negative_ids)):
            if given is not None:
                raise ConfigError(
                    f"{name} of shape {tuple(given.shape)} was given without hard_negatives"
                )
    expected: list[tuple[str, Tensor | None, tuple[int, ...]]] = [
        ("positives", positives, (rows, dim)),
        ("hard_negatives", hard_negatives, (rows, negatives, dim)),
        ("negative_mask", negative_mask, (rows, negatives)),
        ("anchor_ids", anchor_ids, (rows,)),
        ("positive_ids", positive_ids, (rows,)),
        ("negative_ids", negative_ids, (rows, negatives)),
    ]
    for name, tensor, shape in expected:
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ConfigError(
                f"{name} must have shape {shape} to fit anchors of shape {tuple(anchors.shape)}, "
                f"got {tuple(tensor.shape)}"
            )
    return rows, negatives
