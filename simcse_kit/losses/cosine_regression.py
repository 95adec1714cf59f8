"""The regression of cosines on scores (Sentence-BERT, arXiv 1908.10084)."""

from __future__ import annotations

import torch
from torch import Tensor

from simcse_kit.losses.cosent import check_pairs

__all__ = ["cosine_regression"]


def cosine_regression(cosines: Tensor, scores: Tensor, *, equal: Tensor | None = None) -> Tensor:
    r"""Fit the cosine of every pair to its score, with the mean squared error.

    .. math:: L = \frac{1}{B} \sum_i (\cos_i - y_i)^2

    The regression objective of arXiv 1908.10084, section 3.

    Args:
        cosines: (B,) cosines of the pairs.
        scores: (B,) scores y, from 0 to 1.
        equal: (B,) bool, pairs of two equal texts, which are never pushed apart: their error is 0
            where the cosine is above the score.

    Returns:
        A scalar.

    Raises:
        ConfigError: The shapes do not match, or there is no pair.

    Examples:
        >>> cosine_regression(torch.tensor([1.0, 0.5]), torch.tensor([1.0, 0.0]))
        tensor(0.1250)
    """
    check_pairs(cosines, scores)
    wide = cosines.to(torch.promote_types(cosines.dtype, torch.float32))
    errors = wide - scores.to(wide.dtype)
    if equal is not None:
        errors = errors.masked_fill(equal & (errors > 0), 0)
    return errors.square().mean()
