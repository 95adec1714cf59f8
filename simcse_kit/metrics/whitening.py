"""Affine maps fitted on embeddings: standardisation, whitening, all-but-the-top.

Each map is ``x W^T + b``, so that an encoder can store it as a Dense stage. It is fitted on mean
and covariance, which are accumulated chunk by chunk in a (d, d) float64 matrix.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from simcse_kit.errors import ConfigError

__all__ = [
    "Affine",
    "Moments",
    "all_but_the_top",
    "closest_rotation",
    "moments",
    "principal_directions",
    "standardize",
    "whitening",
]

# Variances below this share of the largest one are rounding errors of float32.
_FLAT = 1e-9


@dataclass(frozen=True)
class Moments:
    """Mean (d,) and population covariance (d, d) of ``count`` vectors, in float64."""

    count: int
    mean: Tensor
    covariance: Tensor


@dataclass(frozen=True)
class Affine:
    """The map ``x W^T + b`` with ``weight`` (k, d) and ``bias`` (k,), both float64."""

    weight: Tensor
    bias: Tensor

    def __call__(self, vectors: Tensor) -> Tensor:
        """Map (n, d) vectors to (n, k), in the type of ``vectors``."""
        # Computed where the map is: MPS has no float64.
        wide = vectors.to(self.weight.device).double()
        moved: Tensor = wide @ self.weight.T + self.bias
        return moved.to(vectors.dtype).to(vectors.device)


def moments(chunks: Iterable[Tensor]) -> Moments:
    """Compute mean and covariance of the vectors of all chunks.

    Chunks are merged with the update of Chan, Golub and LeVeque (1983), which loses no digits to
    a large common mean, such as that of raw encoders.

    Args:
        chunks: (n_i, d) each.

    Raises:
        ConfigError: There are fewer than 2 vectors in total, or values are not finite.

    Examples:
        >>> moments([torch.tensor([[0.0, 1.0]]), torch.tensor([[2.0, 1.0]])]).mean
        tensor([1., 1.], dtype=torch.float64)
    """
    count, mean, products = 0, torch.zeros(()), torch.zeros(())
    for chunk in chunks:
        rows = chunk.detach().cpu().double()
        if not bool(torch.isfinite(rows).all()):
            raise ConfigError("moments: some embeddings hold NaN or infinity; check the model")
        if not len(rows):
            continue
        centre = rows.mean(dim=0)
        step = centre - mean
        around = (rows - centre).T @ (rows - centre)
        share = len(rows) / (count + len(rows))
        products = (
            products + around + torch.outer(step, step) * (count * share) if count else around
        )
        mean = mean + step * share if count else centre
        count += len(rows)
    if count < 2:
        raise ConfigError(f"moments: {count} embeddings; give 2 or more to fit on")
    return Moments(count, mean, products / count)


def standardize(found: Moments) -> Affine:
    """Map every dimension to mean 0 and variance 1; a constant dimension becomes 0.

    Timkey and van Schijndel 2021, arXiv 2109.04404.
    """
    variance = found.covariance.diagonal()
    scale = torch.where(variance > _FLAT * variance.max(), variance.rsqrt(), 0.0)
    return Affine(torch.diag(scale), -found.mean * scale)


def whitening(found: Moments, k: int | None = None) -> Affine:
    """Map the first ``k`` principal axes to mean 0 and variance 1, without correlation.

    Algorithm 1 of Su et al. 2021, arXiv 2103.15316; compare ``compute_kernel_bias`` of
    https://github.com/bojone/BERT-whitening/blob/b4a44cc0adaf11cc7380366a5009173ae7763194/demo.py

    Args:
        found: The moments of the embeddings to fit on.
        k: The number of dimensions to keep. By default, all with a variance above 0.

    Raises:
        ConfigError: k is below 1 or above the number of directions with a variance above 0.

    Examples:
        >>> points = torch.tensor([[4.0, 1.0], [-4.0, 1.0], [0.0, -1.0], [0.0, -1.0]])
        >>> whitened = whitening(moments([points]))(points)
        >>> moments([whitened]).covariance.diagonal().round(decimals=4)
        tensor([1., 1.], dtype=torch.float64)
    """
    variances, axes = _axes(found)
    rank = int((variances > _FLAT * variances[0]).sum()) if float(variances[0]) > 0 else 0
    k = rank if k is None else k
    if not isinstance(k, int) or not 1 <= k <= rank:
        raise ConfigError(
            f"whitening: k is {k!r}; {found.count} embeddings of {len(found.mean)} dimensions vary "
            f"in {rank} directions: give 1 to {rank}, or more text to fit on"
        )
    weight = (axes[:, :k] * variances[:k].rsqrt()).T
    return Affine(weight, -weight @ found.mean)


def all_but_the_top(found: Moments, k: int | None = None) -> Affine:
    """Remove the mean and the first ``k`` principal directions.

    Algorithm 1 of Mu and Viswanath 2018, arXiv 1702.01417.

    Args:
        found: The moments of the embeddings to fit on.
        k: The number of directions to remove. By default d / 100, as in the paper, and at least 1.

    Raises:
        ConfigError: k is negative, or not below d.
    """
    d = len(found.mean)
    k = max(1, round(d / 100)) if k is None else k
    if not isinstance(k, int) or not 0 <= k < d:
        raise ConfigError(
            f"abtt: k is {k!r}; allowed: whole numbers from 0 to {d - 1}, below the dimension"
        )
    top = _axes(found)[1][:, :k]
    weight = torch.eye(d, dtype=torch.float64) - top @ top.T
    return Affine(weight, -weight @ found.mean)


def principal_directions(found: Moments, count: int) -> Tensor:
    """Return the directions on which vectors have the largest mean squared projections.

    They are the first right singular vectors of the matrix of all vectors, without centring: the
    projection keeps as much of every dot product as a linear map to ``count`` dimensions can. The
    largest coordinate of each direction is positive.

    Args:
        found: The moments of the vectors.
        count: The number of directions, at most d.

    Returns:
        (d, count) float64, orthonormal columns, the most important first.

    Examples:
        >>> points = torch.tensor([[3.0, 4.0], [6.0, 8.0]])
        >>> principal_directions(moments([points]), 1).T
        tensor([[0.6000, 0.8000]], dtype=torch.float64)
    """
    second = found.covariance + torch.outer(found.mean, found.mean)
    directions: Tensor = torch.linalg.eigh(second)[1].flip(1)[:, :count]
    largest = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))
    return directions.mul(largest.sign())


def closest_rotation(vectors: Tensor, goal: Tensor) -> Tensor:
    """Return the rotation (or reflection) that brings vectors closest to others, both centred.

    Schönemann 1966, "A generalized solution of the orthogonal Procrustes problem".

    Args:
        vectors: (n, d), float64.
        goal: (n, d), float64, what each vector should be close to.

    Returns:
        (d, d), orthogonal; to be multiplied from the right.

    Examples:
        >>> points = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]], dtype=torch.float64)
        >>> closest_rotation(points, points.flip(1)).round(decimals=6).abs()
        tensor([[0., 1.],
                [1., 0.]], dtype=torch.float64)
    """
    left, _, right = torch.linalg.svd((vectors - vectors.mean(0)).T @ (goal - goal.mean(0)))
    rotation: Tensor = left @ right
    return rotation


def _axes(found: Moments) -> tuple[Tensor, Tensor]:
    """Return variances, largest first, and the principal axes as columns."""
    variances, axes = torch.linalg.eigh(found.covariance)
    return variances.flip(0).clamp_min(0), axes.flip(1)
