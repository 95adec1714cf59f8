"""Replaced-token detection (ELECTRA, arXiv 2003.10555), conditional in DiffCSE (2204.10298)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from simcse_kit.errors import ConfigError
from simcse_kit.losses.similarity import full_precision
from simcse_kit.utils.host_copies import reads_are_free

__all__ = ["cross_entropy_where", "replaced_token_loss"]


_IGNORED = -100


def replaced_token_loss(logits: Tensor, replaced: Tensor, attention_mask: Tensor) -> Tensor:
    r"""Compute the loss of replaced-token detection: the mean over all tokens except padding of

    .. math::
        -[x''_t = x_t] \log D(x'', h, t) - [x''_t \neq x_t] \log (1 - D(x'', h, t))

    where D is the probability of *original*. Section 3 of arXiv 2204.10298. The mean over tokens
    replaces the sum, like in ``cl_forward`` of
    https://github.com/voidism/DiffCSE/blob/881da0e2abcbadc02bac0a5c466f342642d96136/diffcse/models.py
    which also counts padding.

    Args:
        logits: (R, L, 2), the logits of original and replaced.
        replaced: (R, L) bool, True where the edited sentence differs from the original.
        attention_mask: (R, L), 0 at padding.

    Returns:
        A scalar.

    Raises:
        ConfigError: The shapes do not match.

    Examples:
        >>> replaced_token_loss(torch.zeros(1, 3, 2), torch.zeros(1, 3), torch.ones(1, 3))
        tensor(0.6931)
    """
    if logits.dim() != 3 or logits.shape != (*replaced.shape, 2):
        raise ConfigError(
            f"logits must have shape {(*replaced.shape, 2)} to fit replaced of shape "
            f"{tuple(replaced.shape)}, got {tuple(logits.shape)}"
        )
    with full_precision(logits.device):
        return cross_entropy_where(logits, replaced.long(), attention_mask.bool())


def cross_entropy_where(
    logits: Tensor, targets: Tensor, chosen: Tensor, *, reduction: Literal["mean", "sum"] = "mean"
) -> Tensor:
    """Compute the cross entropy over chosen tokens, in float32 or wider.

    Args:
        logits: (R, L, K).
        targets: (R, L) int64, classes from 0 to K - 1.
        chosen: (R, L) bool, the tokens that count.
        reduction: Whether the terms are averaged or added.

    Examples:
        >>> chosen = torch.tensor([[True, False]])
        >>> cross_entropy_where(torch.zeros(1, 2, 4), torch.zeros(1, 2).long(), chosen)
        tensor(1.3863)
    """
    if reads_are_free(logits.device):
        logits, targets = logits[chosen], targets[chosen]
    else:
        # An accelerator would have to tell the host the number of chosen tokens.
        logits, targets = logits.flatten(0, 1), targets.masked_fill(~chosen, _IGNORED).flatten()
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(wide, targets, ignore_index=_IGNORED, reduction=reduction)
