"""Losses between sentences and prototypes: SwAV's swapped prediction and PCL's ProtoNCE."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from simcse_kit.errors import ConfigError
from simcse_kit.losses.contrast import check_temperature
from simcse_kit.losses.similarity import cosine_matrix, full_precision

__all__ = ["proto_nce", "swapped_prediction"]


def swapped_prediction(
    first: Tensor,
    second: Tensor,
    first_codes: Tensor,
    second_codes: Tensor,
    *,
    temperature: float = 0.1,
) -> Tensor:
    r"""Predict the code of one view from the other: the mean over items and both directions of

    .. math::
        \ell(z_t, q_s) = -\sum_k q_s^{(k)} \log p_t^{(k)}, \quad
        p_t^{(k)} = \frac{e^{z_t^\top c_k / \tau}}{\sum_{k'} e^{z_t^\top c_{k'} / \tau}}

    Equations 1 and 2 of arXiv 2006.09882; the equation adds the directions, the paper's own code
    takes their mean, and so does this.

    Args:
        first: (B, K) similarities of the first view and the prototypes.
        second: (B, K), the same of the second view.
        first_codes: (B, K), rows that sum to 1; without gradient.
        second_codes: (B, K).
        temperature: τ > 0.

    Returns:
        A scalar, float32 or wider.

    Raises:
        ConfigError: shapes that do not fit, or τ ≤ 0.
    """
    shapes = [tuple(part.shape) for part in (first, second, first_codes, second_codes)]
    if first.dim() != 2 or 0 in first.shape or len(set(shapes)) > 1:
        raise ConfigError(f"scores and codes must all have shape (B, K), got {shapes}")
    check_temperature(temperature)

    def direction(scores: Tensor, codes: Tensor) -> Tensor:
        wide = scores.to(torch.promote_types(scores.dtype, torch.float32))
        logs = F.log_softmax(wide / temperature, dim=1)
        return -(codes.detach() * logs).sum(dim=1).mean()

    with full_precision(first.device):
        return (direction(first, second_codes) + direction(second, first_codes)) / 2


def proto_nce(vectors: Tensor, prototypes: Tensor, concentration: Tensor, own: Tensor) -> Tensor:
    r"""Each sentence against the prototypes of one clustering: the mean over sentences of

    .. math::
        -\log \frac{e^{\cos(v_i, c_s) / \phi_s}}{\sum_{j=1}^{k} e^{\cos(v_i, c_j) / \phi_j}}

    where s is the cluster of sentence i. The second term of equation 11 of arXiv 2005.04966, for
    one of its M clusterings. All other prototypes are negatives; the paper draws r of them, as it
    has a hundred thousand.

    Args:
        vectors: (B, d), any floating type; cosines and softmax are float32 or wider.
        prototypes: (k, d), without gradient.
        concentration: (k,) φ > 0, see :func:`~simcse_kit.losses.clustering.concentrations`.
        own: (B,) int64, the cluster of each sentence.

    Returns:
        A scalar, float32 or wider.

    Raises:
        ConfigError: shapes that do not fit.
    """
    fits = vectors.dim() == prototypes.dim() == 2 and vectors.shape[1] == prototypes.shape[1]
    if not fits or concentration.shape != prototypes.shape[:1] or own.shape != vectors.shape[:1]:
        given = [tuple(part.shape) for part in (vectors, prototypes, concentration, own)]
        raise ConfigError(
            f"vectors, prototypes, concentration and own must have shapes (B, d), (k, d), (k,) "
            f"and (B,), got {given}"
        )
    logits = cosine_matrix(vectors, prototypes) / concentration
    with full_precision(logits.device):
        return F.cross_entropy(logits, own)
