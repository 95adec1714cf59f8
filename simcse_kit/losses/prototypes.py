"""Prototypes: balanced assignments, clustering, and the losses of SwAV and PCL."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from simcse_kit.errors import ConfigError
from simcse_kit.losses.contrastive_batch import check_temperature
from simcse_kit.losses.similarity import cosine_matrix, full_precision, unit_rows

__all__ = [
    "concentrations",
    "proto_nce",
    "sinkhorn",
    "spherical_kmeans",
    "swapped_prediction",
]


def swapped_prediction(
    first: Tensor,
    second: Tensor,
    first_codes: Tensor,
    second_codes: Tensor,
    *,
    temperature: float = 0.1,
) -> Tensor:
    r"""Predict the code of one view from the other: the mean over rows and both directions of

    .. math::
        \ell(z_t, q_s) = -\sum_k q_s^{(k)} \log p_t^{(k)}, \quad
        p_t^{(k)} = \frac{e^{z_t^\top c_k / \tau}}{\sum_{k'} e^{z_t^\top c_{k'} / \tau}}

    Equations 1 and 2 of arXiv 2006.09882. The equation adds the directions; this function takes
    their mean, like ``train`` of
    https://github.com/facebookresearch/swav/blob/5e073db0cc69dea22aa75e92bfdd75011e888f28/main_swav.py

    Args:
        first: (B, K), similarities of the first view and the prototypes.
        second: (B, K), similarities of the second view and the prototypes.
        first_codes: (B, K), rows that sum to 1, see :func:`sinkhorn`. They get no gradient.
        second_codes: (B, K).
        temperature: The temperature τ > 0.

    Raises:
        ConfigError: The shapes do not match, or τ ≤ 0.

    Examples:
        >>> scores, codes = torch.zeros(2, 4), torch.full((2, 4), 0.25)
        >>> swapped_prediction(scores, scores, codes, codes)  # ln 4
        tensor(1.3863)
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
    r"""Compare sentences with the prototypes of one clustering: the mean over sentences of

    .. math::
        -\log \frac{e^{\cos(v_i, c_s) / \phi_s}}{\sum_{j=1}^{k} e^{\cos(v_i, c_j) / \phi_j}}

    where s is the cluster of sentence i. The second term of equation 11 of arXiv 2005.04966, for
    one of its M clusterings. All other prototypes are negatives; the paper, with up to a hundred
    thousand prototypes, samples r of them.

    Args:
        vectors: (B, d).
        prototypes: (k, d).
        concentration: (k,), φ > 0, see :func:`concentrations`.
        own: (B,) int64, the cluster of each sentence.

    Raises:
        ConfigError: The shapes do not match.

    Examples:
        >>> proto_nce(torch.eye(2), torch.eye(2), torch.ones(2), torch.tensor([0, 1]))
        tensor(0.3133)
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


@torch.no_grad()
def sinkhorn(scores: Tensor, *, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    r"""Assign n items to K prototypes softly, with the same total weight for every prototype.

    .. math::
        \max_Q \mathrm{Tr}(Q^\top S) + \varepsilon H(Q), \quad
        Q \mathbf 1 = \tfrac 1 n \mathbf 1, \; Q^\top \mathbf 1 = \tfrac 1 K \mathbf 1

    Equations 3 to 5 of arXiv 2006.09882: :math:`Q = \mathrm{Diag}(u) \, e^{S/\varepsilon} \,
    \mathrm{Diag}(v)`, found by scaling columns and rows in turn. This function scales
    logarithms, so that large scores do not overflow. Compare ``distributed_sinkhorn`` of
    https://github.com/facebookresearch/swav/blob/5e073db0cc69dea22aa75e92bfdd75011e888f28/main_swav.py

    Args:
        scores: (n, K), similarities of items and prototypes. The result has no gradient.
        epsilon: The smoothness ε > 0. A small value assigns each item to a single prototype.
        iterations: The number of times columns and rows are scaled; rows are scaled last.

    Returns:
        (n, K) codes, float32 or wider. Every row sums to 1 and, with enough iterations, every
        column to n/K.

    Raises:
        ConfigError: The scores have another shape, ε ≤ 0, or there is no iteration.

    Examples:
        >>> sinkhorn(torch.zeros(4, 2))[0]
        tensor([0.5000, 0.5000])
    """
    if scores.dim() != 2 or 0 in scores.shape:
        raise ConfigError(f"scores must have shape (n, K), got {tuple(scores.shape)}")
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise ConfigError(f"epsilon must be above 0, got {epsilon}; the paper uses 0.05")
    if iterations < 1:
        raise ConfigError(f"iterations must be 1 or more, got {iterations}; the paper uses 3")
    logs = scores.to(torch.promote_types(scores.dtype, torch.float32)) / epsilon
    for _ in range(iterations):
        # All columns have the same sum, and so have all rows, so scaling each to 1 is enough.
        logs = logs - logs.logsumexp(dim=0, keepdim=True)
        logs = logs - logs.logsumexp(dim=1, keepdim=True)
    return logs.exp()


@torch.no_grad()
def spherical_kmeans(
    points: Tensor, clusters: int, *, generator: torch.Generator, iterations: int = 20
) -> tuple[Tensor, Tensor]:
    """Cluster points by cosine, with k-means whose centres have length 1.

    The centres are initialised with k-means++: the first one is a random point, each further one
    a point drawn with a probability proportional to its squared distance 2 - 2·cos to the nearest
    centre. An empty cluster is moved to the point that is farthest from its centre.

    Args:
        points: (n, d). They are scaled to length 1.
        clusters: The number k of clusters, 1 to n.
        generator: A random generator on the CPU, which determines the result.
        iterations: The maximum number of rounds. The function stops early if no assignment
            changes.

    Returns:
        Centres (k, d) of length 1, and the nearest centre of every point, (n,) int64.

    Raises:
        ConfigError: There are fewer points than clusters.

    Examples:
        >>> points = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
        >>> centres, nearest = spherical_kmeans(points, 2, generator=torch.manual_seed(0))
        >>> bool(nearest[0] == nearest[1]), bool(nearest[0] == nearest[2])
        (True, False)
    """
    if points.dim() != 2 or not 1 <= clusters <= len(points):
        raise ConfigError(
            f"k-means into {clusters} clusters needs as many points of shape (n, d), got "
            f"{tuple(points.shape)}"
        )
    units = unit_rows(points)
    centres = _plus_plus(units, clusters, generator)
    nearest = (units @ centres.T).argmax(dim=1)
    for _ in range(iterations):
        sums = torch.zeros_like(centres).index_add_(0, nearest, units)
        centres = unit_rows(sums)
        cosines = units @ centres.T
        empty = (nearest.bincount(minlength=clusters) == 0).nonzero().squeeze(1)
        if len(empty):
            own = cosines.gather(1, nearest.unsqueeze(1)).squeeze(1)
            farthest = own.argsort()[: len(empty)]
            centres[empty] = units[farthest]
            cosines = units @ centres.T
        before, nearest = nearest, cosines.argmax(dim=1)
        if torch.equal(before, nearest):
            break
    return centres, nearest


def _plus_plus(units: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    lots = torch.rand(clusters, generator=generator, dtype=torch.float64).tolist()
    chosen = [min(int(lots[0] * len(units)), len(units) - 1)]
    distance = torch.full((len(units),), 4.0, device=units.device, dtype=torch.float64)
    for lot in lots[1:]:
        to_last = (2 - 2 * (units @ units[chosen[-1]])).clamp_min(0)
        distance = torch.minimum(distance, to_last.double())
        # Rounding could give a chosen point a small distance to itself; it must not be redrawn.
        distance[chosen[-1]] = 0.0
        heap = distance.cumsum(0)
        place = int(torch.searchsorted(heap, lot * heap[-1], right=True))
        chosen.append(min(place, len(units) - 1))
    return units[torch.tensor(chosen, device=units.device)].clone()


@torch.no_grad()
def concentrations(
    points: Tensor,
    centres: Tensor,
    nearest: Tensor,
    *,
    temperature: float,
    smoothing: float = 10.0,
) -> Tensor:
    r"""Compute the concentration of each cluster, which divides its similarities:

    .. math:: \phi_c = \frac{\sum_{z \in c} \lVert v_z - c \rVert_2}{Z_c \log(Z_c + \alpha)}

    Equation 12 of arXiv 2005.04966, where Z is the number of points of the cluster. A cluster of
    one point or none gets the largest φ. All φ are clipped to their 10th and 90th percentile and
    scaled to the temperature as their mean, like ``run_kmeans`` of
    https://github.com/salesforce/PCL/blob/af7287d0a46674a3dad6c2a6b2a4fd8e899e252e/main_pcl.py

    Args:
        points: (n, d). They are scaled to length 1.
        centres: (k, d) of length 1.
        nearest: (n,) int64, the cluster of every point.
        temperature: The mean τ > 0 of the result.
        smoothing: The number α that prevents a large φ for small clusters.

    Returns:
        (k,) positive numbers.

    Examples:
        >>> concentrations(torch.eye(2), torch.eye(2), torch.tensor([0, 1]), temperature=0.2)
        tensor([0.2000, 0.2000])
    """
    units = unit_rows(points)
    away = torch.linalg.vector_norm(units - centres[nearest], dim=1)
    count = nearest.bincount(minlength=len(centres)).to(away.dtype)
    total = torch.zeros_like(count).index_add_(0, nearest, away)
    spread = total / count.clamp_min(1) / torch.log(count + smoothing)
    known = count > 1
    largest = spread[known].max() if known.any() else spread.new_tensor(1.0)
    spread = torch.where(known, spread, largest)
    low, high = torch.quantile(spread, spread.new_tensor([0.1, 0.9]))
    spread = spread.clamp(low, high)
    mean = spread.mean()
    # If all points coincide with their centres, no cluster is more concentrated than another.
    even = torch.full_like(spread, temperature)
    return torch.where(mean > 0, temperature * spread / mean.clamp_min(1e-30), even)
