"""Losses that fit the vectors of a student to the target vectors of its teachers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from simcse_kit.errors import ConfigError
from simcse_kit.losses.contrastive_batch import check_temperature
from simcse_kit.losses.similarity import cosine_matrix, full_precision, pair_cosine

__all__ = ["relational_kl", "target_distance", "target_mse"]

# exp() of it is 0 in every floating type.
_LEFT_OUT = -1e9


def target_distance(vectors: Tensor, targets: Tensor) -> Tensor:
    r"""Compute the mean cosine distance of every vector to its target.

    .. math:: L = \frac{1}{B} \sum_i \left(1 - \cos(s_i, t_i)\right)

    Args:
        vectors: (B, d) vectors s of the student.
        targets: (B, d) vectors t of the teachers, of any length.

    Returns:
        A scalar.

    Raises:
        ConfigError: The shapes differ, or there is no row.

    Examples:
        >>> target_distance(torch.eye(2), torch.tensor([[2.0, 0.0], [1.0, 0.0]]))
        tensor(0.5000)
    """
    _check_shapes(vectors, targets)
    return (1 - pair_cosine(vectors, targets)).mean()


def target_mse(vectors: Tensor, targets: Tensor) -> Tensor:
    r"""Compute the mean squared error of all coordinates.

    .. math:: L = \frac{1}{B d} \sum_i \lVert s_i - t_i \rVert^2

    The loss of arXiv 2004.09813, section 2, for one language.

    Args:
        vectors: (B, d) vectors s of the student.
        targets: (B, d) vectors t of the teachers.

    Returns:
        A scalar.

    Raises:
        ConfigError: The shapes differ, or there is no row.

    Examples:
        >>> target_mse(torch.eye(2), torch.zeros(2, 2))
        tensor(0.5000)
    """
    _check_shapes(vectors, targets)
    wide = torch.promote_types(vectors.dtype, torch.float32)
    return F.mse_loss(vectors.to(wide), targets.to(wide))


def relational_kl(
    vectors: Tensor, targets: Tensor, *, temperature: float, text_ids: Tensor | None = None
) -> Tensor:
    r"""Compare how similar the other rows of the batch are to each row, for student and teachers.

    .. math::
        L = \frac{1}{B} \sum_i KL(p_i \Vert q_i), \quad
        p_{ij} = \frac{e^{\cos(t_i, t_j)/\tau}}{\sum_{k \ne i} e^{\cos(t_i, t_k)/\tau}}

    with q likewise from the cosines of the student. It has the gradient of the ListNet loss of
    RankCSE (arXiv 2305.16726) with equal temperatures. Rows with the text of row i are
    left out of its sums, as row i itself is, so that equal texts are never pushed apart.

    The (B, B) cosines of both sides are stored.

    Args:
        vectors: (B, d) vectors s of the student.
        targets: (B, e) vectors t of the teachers, of any width and length.
        temperature: The temperature τ of both softmax functions.
        text_ids: (B,) ids of the texts; by default all texts differ.

    Returns:
        A scalar; 0 for a single row.

    Raises:
        ConfigError: The numbers of rows differ, there is no row, or the temperature is not positive
            and finite.

    Examples:
        >>> targets = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> relational_kl(targets * 2, targets, temperature=0.05)
        tensor(0.)
        >>> relational_kl(targets.flip(0), targets, temperature=0.05) > 1
        tensor(True)
    """
    check_temperature(temperature)
    _check_shapes(vectors[:, :1], targets[:, :1])
    if text_ids is None:
        left_out = torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
    else:
        left_out = text_ids.unsqueeze(0) == text_ids.unsqueeze(1)
    with full_precision(vectors.device):
        student, teacher = (
            F.log_softmax(
                (cosine_matrix(side, side) / temperature).masked_fill(left_out, _LEFT_OUT), dim=1
            )
            for side in (vectors, targets)
        )
        return F.kl_div(student, teacher, reduction="batchmean", log_target=True)


def _check_shapes(vectors: Tensor, targets: Tensor) -> None:
    if vectors.shape != targets.shape or vectors.dim() != 2 or not len(vectors):
        raise ConfigError(
            f"the vectors of the student are {tuple(vectors.shape)} and their targets "
            f"{tuple(targets.shape)}; both must be (B, d) with at least one row"
        )
