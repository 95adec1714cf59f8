"""Replaced-token detection (ELECTRA, arXiv 2003.10555), conditional in DiffCSE (2204.10298)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from simcse_kit.errors import ConfigError
from simcse_kit.losses.similarity import full_precision

__all__ = ["replaced_token_loss"]


def replaced_token_loss(logits: Tensor, replaced: Tensor, attention_mask: Tensor) -> Tensor:
    r"""The mean over all tokens that are not padding of

    .. math::
        -[x''_t = x_t] \log D(x'', h, t) - [x''_t \neq x_t] \log (1 - D(x'', h, t))

    where D is the probability of *original*. Section 3 of arXiv 2204.10298, with the mean over
    tokens in place of its sum, as in the official code; that counts padding as well.

    Args:
        logits: (R, L, 2), of original and replaced; any floating type, computed in float32 or
            wider.
        replaced: (R, L) bool, where the edited sentence differs.
        attention_mask: (R, L), 0 at padding.

    Returns:
        A scalar.

    Raises:
        ConfigError: shapes that do not fit.
    """
    if logits.dim() != 3 or logits.shape != (*replaced.shape, 2):
        raise ConfigError(
            f"logits must have shape {(*replaced.shape, 2)} to fit replaced of shape "
            f"{tuple(replaced.shape)}, got {tuple(logits.shape)}"
        )
    there = attention_mask.bool()
    picked = logits[there]
    picked = picked.to(torch.promote_types(picked.dtype, torch.float32))
    with full_precision(logits.device):
        return F.cross_entropy(picked, replaced[there].long())
