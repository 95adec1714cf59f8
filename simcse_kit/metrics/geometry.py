"""How embeddings lie on the unit sphere: alignment, uniformity, and signs of collapse.

Alignment and uniformity are those of Wang & Isola 2020 (arXiv 2005.10242); SimCSE (arXiv
2104.08821, section 2) takes alignment over the STS-B pairs graded above 4 and uniformity over all
STS-B sentences. All functions return a float64 scalar tensor and accumulate in float64, whatever
the dtype of the input. Gradients flow, but then every tile of :func:`uniformity` is kept for the
backward pass; call it under ``torch.no_grad()`` to measure large sets.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from simcse_kit.errors import ConfigError
from simcse_kit.losses.similarity import full_precision

__all__ = [
    "align_uniform",
    "alignment",
    "dimension_std",
    "effective_rank",
    "mean_cosine",
    "uniformity",
]


def alignment(x: Tensor, y: Tensor, alpha: float = 2.0, *, normalize: bool = True) -> Tensor:
    """Mean of ``||x_i - y_i|| ** alpha`` over positive pairs; lower is better, 0 is perfect.

    Args:
        x: (n, d), n >= 1.
        y: (n, d); ``y[i]`` is the positive of ``x[i]``.
        alpha: exponent, above 0 (2 in both papers).
        normalize: scale rows to length 1 first. The definition is for unit vectors; switch it off
            only for rows that are of length 1 already.

    Raises:
        ConfigError: shapes differ, no pair, non-finite values, or a row of zeros to normalise.
    """
    if x.shape != y.shape:
        raise ConfigError(
            f"alignment: x has shape {tuple(x.shape)} and y {tuple(y.shape)}; "
            "give one positive a row, so that the shapes are equal"
        )
    _positive(alpha, "alignment", "alpha")
    x = _rows(x, "alignment", normalize, least=1)
    y = _rows(y, "alignment", normalize, least=1)
    squared = (x.double() - y.double()).square().sum(dim=1)
    return squared.pow(alpha / 2).mean()


def uniformity(x: Tensor, t: float = 2.0, tile: int = 1024, *, normalize: bool = True) -> Tensor:
    """Log of the mean of ``exp(-t * ||x_i - x_j||**2)`` over i < j; lower is more uniform.

    It is 0 where all rows are the same and at least -4t. A row is never paired with itself, but
    equal rows are pairs like any other: pass distinct sentences. Memory is that of a few (tile,
    tile) float64 matrices, never (n, n).

    Args:
        x: (n, d), n >= 2.
        t: temperature, above 0 (2 in both papers).
        tile: rows a tile; changes memory and speed, not the value.
        normalize: scale rows to length 1 first; switch it off only for rows of length 1.

    Raises:
        ConfigError: fewer than 2 rows, non-finite values, a row of zeros, or a bad t or tile.
    """
    _positive(t, "uniformity", "t")
    _positive(tile, "uniformity", "tile")
    x = _rows(x, "uniformity", normalize, least=2)
    n = len(x)
    squares = x.double().square().sum(dim=1)
    # Running, and not a list of scalars: those would lie between the tiles on the heap, whose
    # memory could then not be given back (19 GB at 100,000 rows).
    total = torch.full((), -torch.inf, dtype=torch.float64, device=x.device)
    for top in range(0, n, tile):
        rows = slice(top, top + tile)
        for left in range(top, n, tile):
            columns = slice(left, left + tile)
            inner = (x[rows] @ x[columns].T).double()
            distance = squares[rows, None] + squares[None, columns] - 2 * inner
            logits = distance.clamp_min(0) * -t
            if left == top:
                # keep i < j: the diagonal holds the self pairs, below it each pair comes again
                upper = torch.ones_like(logits, dtype=torch.bool).triu(1)
                logits = logits[upper]
            if logits.numel():
                total = torch.logaddexp(total, torch.logsumexp(logits.flatten(), dim=0))
    pairs = torch.tensor(n * (n - 1) / 2, dtype=torch.float64, device=x.device)
    return total - pairs.log()


def align_uniform(
    x: Tensor, y: Tensor, *, weight: float = 1.0, alpha: float = 2.0, t: float = 2.0
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Alignment and uniformity as a loss:

    .. math:: L_{align}(x, y; \alpha) + \lambda \, (L_{uniform}(x; t) + L_{uniform}(y; t)) / 2

    Section 5 of arXiv 2005.10242. Here nothing is sampled: each view's uniformity is over all of
    its pairs. Equal rows are pairs too, so leave out repeated texts before.

    Args:
        x: (n, d), n >= 2.
        y: (n, d); ``y[i]`` is the positive of ``x[i]``.
        weight: lambda, above 0.
        alpha: exponent of the alignment.
        t: temperature of the uniformity.

    Returns:
        Three float64 scalars: the loss, the alignment and the mean uniformity.

    Raises:
        ConfigError: as :func:`alignment` and :func:`uniformity`, or a weight not above 0.
    """
    _positive(weight, "align_uniform", "weight")
    # Autocast would round the products of `uniformity`.
    with full_precision(x.device):
        pulled = alignment(x, y, alpha)
        spread = (uniformity(x, t) + uniformity(y, t)) / 2
    return pulled + weight * spread, pulled, spread


def mean_cosine(x: Tensor, *, normalize: bool = True) -> Tensor:
    """Mean cosine over all pairs i < j, from the length of the sum vector: O(n d).

    Args:
        x: (n, d), n >= 2.
        normalize: scale rows to length 1 first; switch it off only for rows of length 1.

    Raises:
        ConfigError: fewer than 2 rows, non-finite values, or a row of zeros.
    """
    x = _rows(x, "mean_cosine", normalize, least=2).double()
    n = len(x)
    return (x.sum(dim=0).square().sum() - x.square().sum()) / (n * (n - 1))


def dimension_std(x: Tensor, *, normalize: bool = True) -> Tensor:
    """Mean over the d dimensions of the (population) standard deviation of the unit vectors.

    The raw mean is returned. It is at most ``1 / sqrt(d)``, which a centred cloud with equal
    spread in every dimension reaches, and 0 where all rows are the same (the collapse check of
    SimSiam, arXiv 2011.10566, figure 2).

    Args:
        x: (n, d), n >= 2.
        normalize: scale rows to length 1 first; switch it off only for rows of length 1.

    Raises:
        ConfigError: fewer than 2 rows, non-finite values, or a row of zeros.
    """
    x = _rows(x, "dimension_std", normalize, least=2).double()
    return x.std(dim=0, correction=0).mean()


def effective_rank(x: Tensor, *, normalize: bool = True) -> Tensor:
    """Exponential of the entropy of the centred matrix's normalised singular values.

    Roy & Vetterli 2007, "The effective rank: a measure of effective dimensionality": with
    ``p_k = s_k / sum(s)``, ``exp(-sum p_k log p_k)``, between 1 and ``min(n - 1, d)``. The
    singular values come from the (d, d) covariance in float64, or from the (n, n) Gram matrix where
    that is smaller. 0 where all rows are the same.

    Args:
        x: (n, d), n >= 2.
        normalize: scale rows to length 1 first.

    Raises:
        ConfigError: fewer than 2 rows, non-finite values, or a row of zeros.
    """
    x = _rows(x, "effective_rank", normalize, least=2).double()
    n, d = x.shape
    scale = x.square().sum() / n
    centred = x - x.mean(dim=0)
    products = centred.T @ centred if d <= n else centred @ centred.T
    variances = torch.linalg.eigvalsh(products / n)
    noise = torch.finfo(torch.float64).eps * max(n, d)
    if variances[-1] <= noise * scale:
        return torch.zeros((), dtype=torch.float64, device=x.device)
    # rounding leaves the null space at about eps times the largest; its root would count
    singular = variances[variances > noise * variances[-1]].sqrt()
    p = singular / singular.sum()
    return torch.exp(-(p * p.log()).sum())


def _positive(value: float, function: str, name: str) -> None:
    if not value > 0:
        raise ConfigError(f"{function}: {name} is {value}; give a number above 0")


def _rows(x: Tensor, function: str, normalize: bool, least: int) -> Tensor:
    """Check a matrix of embeddings, and bring its rows to length 1 where asked."""
    if x.ndim != 2 or len(x) < least or x.shape[1] < 1:
        raise ConfigError(
            f"{function}: got shape {tuple(x.shape)}; give (n, d) embeddings of at least {least} "
            f"{'row' if least == 1 else 'rows'}"
        )
    if not x.is_floating_point():
        raise ConfigError(f"{function}: got dtype {x.dtype}; give floating point embeddings")
    bad = int((~torch.isfinite(x)).any(dim=1).sum())
    if bad:
        raise ConfigError(
            f"{function}: {bad} of {len(x)} rows hold NaN or infinity; "
            "drop them or mend the encoder that made them"
        )
    if x.dtype in (torch.float16, torch.bfloat16):
        x = x.float()
    if not normalize:
        return x
    zero = int((x == 0).all(dim=1).sum())
    if zero:
        raise ConfigError(
            f"{function}: {zero} of {len(x)} rows are all zeros and have no direction; drop them"
        )
    # scaling by the largest entry first keeps very long and very short rows from losing their norm
    return F.normalize(x / x.abs().amax(dim=1, keepdim=True), dim=1)
