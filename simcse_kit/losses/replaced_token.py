"""Replaced-token detection (ELECTRA, arXiv 2003.10555), conditional in DiffCSE (2204.10298)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from simcse_kit.errors import ConfigError
from simcse_kit.losses.similarity import full_precision

__all__ = ["replaced_token_loss"]


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
    there = attention_mask.bool()
    picked = logits[there]
    picked = picked.to(torch.promote_types(picked.dtype, torch.float32))
    with full_precision(logits.device):
        return F.cross_entropy(picked, replaced[there].long())
