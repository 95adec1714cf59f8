"""Soft clusters of equal size (Sinkhorn-Knopp), and k-means on the sphere."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from simcse_kit.errors import ConfigError
from simcse_kit.losses.similarity import unit_rows

__all__ = ["concentrations", "sinkhorn", "spherical_kmeans"]


@torch.no_grad()
def sinkhorn(scores: Tensor, *, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    r"""Share n items among K prototypes, so that every prototype gets as much as every other.

    .. math::
        \max_Q \mathrm{Tr}(Q^\top S) + \varepsilon H(Q), \quad
        Q \mathbf 1 = \tfrac 1 n \mathbf 1, \; Q^\top \mathbf 1 = \tfrac 1 K \mathbf 1

    Equations 3 to 5 of arXiv 2006.09882: :math:`Q = \mathrm{Diag}(u) \, e^{S/\varepsilon} \,
    \mathrm{Diag}(v)`, found by scaling columns and rows in turn. The logarithms are scaled, so
    that no score over ε is too large.

    Args:
        scores: (n, K) similarities of items and prototypes; the result has no gradient.
        epsilon: ε > 0, how soft the assignment is. Small: each item to one prototype.
        iterations: how often columns and rows are scaled; the rows last.

    Returns:
        (n, K) codes, float32 or wider; every row sums to 1, and with enough iterations every
        column to n/K.

    Raises:
        ConfigError: scores of another shape, ε ≤ 0, or no iteration.
    """
    if scores.dim() != 2 or 0 in scores.shape:
        raise ConfigError(f"scores must have shape (n, K), got {tuple(scores.shape)}")
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise ConfigError(f"epsilon must be above 0, got {epsilon}; the paper uses 0.05")
    if iterations < 1:
        raise ConfigError(f"iterations must be 1 or more, got {iterations}; the paper uses 3")
    logs = scores.to(torch.promote_types(scores.dtype, torch.float32)) / epsilon
    for _ in range(iterations):
        # What a column or row sums to is the same for all of them, so that 1 does for each.
        logs = logs - logs.logsumexp(dim=0, keepdim=True)
        logs = logs - logs.logsumexp(dim=1, keepdim=True)
    return logs.exp()


@torch.no_grad()
def spherical_kmeans(
    points: Tensor, clusters: int, *, generator: torch.Generator, iterations: int = 20
) -> tuple[Tensor, Tensor]:
    """Cluster by cosine: k-means whose centres have length 1.

    Starts with k-means++: the first centre is a random point, each further one a point drawn in
    proportion to its squared distance to the nearest centre, which is 2 - 2·cos. A cluster that
    loses all its points starts anew at the point that is farthest from its centre.

    Args:
        points: (n, d), of any length.
        clusters: k, 1 to n.
        generator: on the CPU; it decides the result.
        iterations: most rounds; fewer where the assignment does not change any more.

    Returns:
        Centres (k, d) of length 1 and the cluster (n,) int64 of every point, its nearest centre.

    Raises:
        ConfigError: fewer points than clusters.
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
        # A point that was chosen must not come again, though rounding puts it beside itself.
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
    r"""How widely each cluster is spread, to divide its similarities by:

    .. math:: \phi_c = \frac{\sum_{z \in c} \lVert v_z - c \rVert_2}{Z_c \log(Z_c + \alpha)}

    Equation 12 of arXiv 2005.04966, Z being the points of the cluster. A cluster of one point or
    none takes the largest φ; all are clipped to their 10th and 90th percentile and scaled so that
    their mean is the temperature, as the paper's own code does.

    Args:
        points: (n, d), of any length; taken at length 1.
        centres: (k, d) of length 1.
        nearest: (n,) int64, the cluster of every point.
        temperature: τ > 0, the mean of the result.
        smoothing: α, keeps small clusters from a large φ.

    Returns:
        (k,) positive numbers.
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
    # Points that all lie on their centres are spread alike, which is to say not at all.
    even = torch.full_like(spread, temperature)
    return torch.where(mean > 0, temperature * spread / mean.clamp_min(1e-30), even)
