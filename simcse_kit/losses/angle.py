"""The AnglE loss of pairs with scores (arXiv 2309.12871)."""

from __future__ import annotations

from torch import Tensor, nn

from simcse_kit.errors import ConfigError
from simcse_kit.losses.cosent import cosent
from simcse_kit.losses.similarity import full_precision, unit_rows

__all__ = ["angle", "angle_similarity"]


def angle(
    first: Tensor,
    second: Tensor,
    scores: Tensor,
    *,
    temperature: float = 0.05,
    equal: Tensor | None = None,
) -> Tensor:
    """Rank pairs by their scores as :func:`~simcse_kit.losses.cosent.cosent` does, by angles.

    The similarity of a pair is :func:`angle_similarity`, which does not flatten where the cosine
    does. This is only the angle objective of arXiv 2309.12871, as in sentence-transformers, and not
    the paper's cosine and in-batch objectives.

    Args:
        first: (B, d) embeddings of the first texts.
        second: (B, d) embeddings of the second texts.
        scores: (B,) scores of the pairs.
        temperature: The temperature τ > 0.
        equal: (B,) bool, pairs of two equal texts, which are never pushed apart.

    Returns:
        A scalar.

    Raises:
        ConfigError: The shapes do not match, there is no pair, or τ ≤ 0.

    Examples:
        >>> import torch
        >>> angle(torch.eye(2), torch.eye(2), torch.tensor([4.0, 1.0]))
        tensor(0.6931)
    """
    similarities = angle_similarity(first, second)
    return cosent(similarities, scores, temperature=temperature, equal=equal)


def angle_similarity(first: Tensor, second: Tensor) -> Tensor:
    r"""Compare embeddings by their angles as complex vectors.

    The first half of an embedding holds the real parts and the second half the imaginary parts of
    d/2 complex numbers; an odd d is filled up with a 0. For unit vectors z and w it is

    .. math:: \Bigl| \sum_k \mathrm{Re}(z_k \bar w_k) + \mathrm{Im}(z_k \bar w_k) \Bigr|

    which is the sum of the cosine and of a sine. `Official code
    <https://github.com/SeanLee97/AnglE/blob/1af7261b24cf3e3bdfc51cbbcf96106c76966b60/angle_emb/loss.py>`_,
    whose "absolute delta angle" this is; the published formula has the opposite sign.

    Args:
        first: (B, d).
        second: (B, d).

    Returns:
        (B,), 0 to √2, float32 or wider.

    Raises:
        ConfigError: The shapes do not match.

    Examples:
        >>> import torch
        >>> angle_similarity(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
        tensor([1.])
    """
    if first.dim() != 2 or first.shape != second.shape:
        raise ConfigError(
            "the two sides must both have shape (B, d), "
            f"got {tuple(first.shape)} and {tuple(second.shape)}"
        )
    with full_precision(first.device):
        odd = first.shape[1] % 2
        z, w = (nn.functional.pad(unit_rows(side), (0, odd)) for side in (first, second))
        (real_z, imaginary_z), (real_w, imaginary_w) = z.chunk(2, dim=1), w.chunk(2, dim=1)
        sines = (imaginary_z * real_w - real_z * imaginary_w).sum(dim=1)
        return ((z * w).sum(dim=1) + sines).abs()
