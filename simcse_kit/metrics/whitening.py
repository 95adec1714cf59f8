"""Affine maps fitted on embeddings: standardisation, whitening, all-but-the-top.

Each is ``x W^T + b``, so that it can be kept with an encoder as a Dense stage. They are fitted from
the first two moments alone, which are gathered chunk by chunk: memory is that of (d, d) float64.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from simcse_kit.errors import ConfigError

__all__ = ["Affine", "Moments", "all_but_the_top", "moments", "standardize", "whitening"]

# A direction with less of the largest variance than this is rounding error of float32.
_FLAT = 1e-9


@dataclass(frozen=True)
class Moments:
    """Mean (d,) and covariance (d, d), divided by ``count``, of ``count`` vectors; float64."""

    count: int
    mean: Tensor
    covariance: Tensor


@dataclass(frozen=True)
class Affine:
    """``x W^T + b`` with ``weight`` (k, d) and ``bias`` (k,), both float64."""

    weight: Tensor
    bias: Tensor

    def __call__(self, vectors: Tensor) -> Tensor:
        """(n, d) to (n, k), in the type of ``vectors``."""
        moved: Tensor = vectors.double() @ self.weight.T + self.bias
        return moved.to(vectors.dtype)


def moments(chunks: Iterable[Tensor]) -> Moments:
    """Mean and covariance of the vectors of all chunks.

    Chunks are merged as by Chan, Golub and LeVeque (1983), so that a large common mean, as raw
    encoders have it, costs no digits.

    Args:
        chunks: (n_i, d) each.

    Raises:
        ConfigError: fewer than 2 vectors in all, or some that are not finite.
    """
    count, mean, products = 0, torch.zeros(()), torch.zeros(())
    for chunk in chunks:
        rows = chunk.detach().double().cpu()
        if not bool(torch.isfinite(rows).all()):
            raise ConfigError(
                "moments: there are embeddings with NaN or infinity; look at the model"
            )
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
        raise ConfigError(f"moments: {count} embeddings; it takes 2 or more to fit on")
    return Moments(count, mean, products / count)


def standardize(found: Moments) -> Affine:
    """Mean 0 and variance 1 in every dimension (Timkey and van Schijndel 2021, arXiv 2109.04404).

    A dimension that does not vary is set to 0.
    """
    variance = found.covariance.diagonal()
    scale = torch.where(variance > _FLAT * variance.max(), variance.rsqrt(), 0.0)
    return Affine(torch.diag(scale), -found.mean * scale)


def whitening(found: Moments, k: int | None = None) -> Affine:
    """Mean 0 and covariance 1 along the first ``k`` principal axes (Su et al. 2021, arXiv
    2103.15316, algorithm 1).

    Args:
        found: of the embeddings to fit on.
        k: dimensions to keep; without it all that vary.

    Raises:
        ConfigError: k is below 1 or more than the directions that vary.
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
    """Take away the mean and the first ``k`` principal directions (Mu and Viswanath 2018, arXiv
    1702.01417, algorithm 1).

    Args:
        found: of the embeddings to fit on.
        k: directions to take away; without it d / 100, as the paper advises, and at least one.

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


def _axes(found: Moments) -> tuple[Tensor, Tensor]:
    """Variances, largest first, and the principal axes as columns."""
    variances, axes = torch.linalg.eigh(found.covariance)
    return variances.flip(0).clamp_min(0), axes.flip(1)
