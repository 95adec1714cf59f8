"""The CoSENT loss of pairs with scores (Su 2022, https://kexue.fm/archives/8847)."""

from __future__ import annotations

import torch
from torch import Tensor

from simcse_kit.errors import ConfigError
from simcse_kit.losses.contrastive_batch import check_temperature

__all__ = ["check_pairs", "cosent"]


def cosent(
    similarities: Tensor, scores: Tensor, *, temperature: float = 0.05, equal: Tensor | None = None
) -> Tensor:
    r"""Rank pairs by their scores: a pair with a higher score should be more similar.

    .. math:: L = \log\Bigl(1 + \sum_{y_i < y_j} \exp\bigl((s_i - s_j) / \tau\bigr)\Bigr)

    The sum is over all two pairs of the batch whose scores y differ, so that only the order of the
    scores counts and equal scores are not compared. Also published as "CoSENT: Consistent Sentence
    Embedding via Similarity Ranking" (Huang et al. 2024, doi 10.1109/TASLP.2024.3402087). The
    `official code
    <https://github.com/bojone/CoSENT/blob/5154e714038e97d5b56400a8e27d2e0af36fe9a0/accuracy/cosent.py>`_
    multiplies by 20 instead of dividing by τ. The pairs are sorted by score, so that the
    memory is O(B) and not O(B²).

    Args:
        similarities: (B,) similarities s of the pairs, usually cosines.
        scores: (B,) scores y of any type and scale.
        temperature: The temperature τ > 0.
        equal: (B,) bool, pairs of two equal texts. Such a pair is never pushed apart: it is
            compared with pairs of lower scores only.

    Returns:
        A scalar, 0 if no two scores differ.

    Raises:
        ConfigError: The shapes do not match, there is no pair, or τ ≤ 0.

    Examples:
        >>> cosent(torch.tensor([0.5, 0.5]), torch.tensor([4.0, 1.0]))
        tensor(0.6931)
    """
    check_pairs(similarities, scores)
    check_temperature(temperature)
    wide = similarities.to(torch.promote_types(similarities.dtype, torch.float32))
    ordered, order = scores.sort()
    logits = wide[order] / temperature
    # log of the sum of exp(-s_j) over the pairs from j on, and -inf after the last one.
    sums = (-logits).flip(0).logcumsumexp(0).flip(0)
    sums = torch.cat([sums, sums.new_full((1,), -torch.inf)])
    # The first pair with a higher score.
    higher = torch.searchsorted(ordered, ordered, right=True)
    terms = logits + sums[higher]
    if equal is not None:
        terms = terms.masked_fill(equal[order], -torch.inf)
    return torch.cat([terms.new_zeros(1), terms]).logsumexp(0)


def check_pairs(values: Tensor, scores: Tensor) -> None:
    """Refuse pairs and scores of other shapes than (B,).

    Raises:
        ConfigError: The shapes do not match, or there is no pair.
    """
    if values.dim() != 1 or values.shape != scores.shape or not len(scores):
        raise ConfigError(
            "similarities and scores must both have shape (B,) with B of 1 or more, got "
            f"{tuple(values.shape)} and {tuple(scores.shape)}"
        )
