"""Geometry of embeddings: alignment, uniformity, isotropy, and measures of collapse.

All functions compute in float64 for any floating type, and return float64 tensors with gradient.
With gradient, :func:`uniformity` keeps every tile for the backward pass; call it under
``torch.no_grad()`` for large sets.

Rows are scaled to length 1 by default, because the definitions are for unit vectors. Pass
``normalize=False`` only for rows that already have length 1.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from simcse_kit.errors import ConfigError
from simcse_kit.losses.similarity import full_precision
from simcse_kit.utils.host_copies import reads_are_free

__all__ = [
    "align_uniform",
    "alignment",
    "dimension_std",
    "effective_rank",
    "iso_score",
    "mean_cosine",
    "uniformity",
    "variance_spectrum",
]


def alignment(x: Tensor, y: Tensor, alpha: float = 2.0, *, normalize: bool = True) -> Tensor:
    """Compute the mean of ``||x_i - y_i|| ** alpha`` over positive pairs; lower is better.

    Section 4.1 of arXiv 2005.10242, as in
    https://github.com/ssnl/align_uniform/blob/505907b9112e5e9927bec666ff6858c3f6649d05/align_uniform/__init__.py
    SimCSE (arXiv 2104.08821, section 2) uses the STS-B pairs with a grade above 4.

    Args:
        x: (n, d), n >= 1.
        y: (n, d), ``y[i]`` is the positive of ``x[i]``.
        alpha: The exponent, above 0 (2 in both papers).
        normalize: Scale rows to length 1 first.

    Raises:
        ConfigError: The shapes differ, there is no pair, values are not finite, or a row to
            normalise is zero.

    Examples:
        >>> alignment(torch.eye(2), torch.eye(2).flip(0))
        tensor(2., dtype=torch.float64)
    """
    if x.shape != y.shape:
        raise ConfigError(
            f"alignment: x has shape {tuple(x.shape)} and y {tuple(y.shape)}; "
            "give one positive for each row, so that the shapes are equal"
        )
    _positive(alpha, "alignment", "alpha")
    x = _rows(x, "alignment", normalize, least=1)
    y = _rows(y.to(x.device), "alignment", normalize, least=1)
    squared = (x.double() - y.double()).square().sum(dim=1)
    return squared.pow(alpha / 2).mean()


def uniformity(x: Tensor, t: float = 2.0, tile: int = 1024, *, normalize: bool = True) -> Tensor:
    """Compute the log of the mean of ``exp(-t * ||x_i - x_j||**2)`` over i < j.

    Section 4.1 of arXiv 2005.10242; lower is more uniform. The value is 0 if all rows are equal,
    and at least -4t. Copies of a sentence count as pairs, so pass distinct sentences. Memory is a
    few (tile, tile) float64 matrices, never (n, n).

    Args:
        x: (n, d), n >= 2.
        t: The temperature, above 0 (2 in both papers).
        tile: The number of rows of a tile; it changes memory and speed, not the value.
        normalize: Scale rows to length 1 first.

    Raises:
        ConfigError: There are fewer than 2 rows, values are not finite, a row to normalise is
            zero, or t or tile is not above 0.

    Examples:
        >>> round(float(uniformity(torch.eye(3))), 4)  # all squared distances are 2
        -4.0
    """
    _positive(t, "uniformity", "t")
    _positive(tile, "uniformity", "tile")
    x = _rows(x, "uniformity", normalize, least=2)
    n = len(x)
    squares = x.double().square().sum(dim=1)
    # A running total. A list of scalars would fragment the heap between the tiles, so that their
    # memory could not be returned to the system (19 GB at 100,000 rows).
    total = torch.full((), -torch.inf, dtype=torch.float64, device=x.device)
    for top in range(0, n, tile):
        rows = slice(top, top + tile)
        for left in range(top, n, tile):
            columns = slice(left, left + tile)
            inner = (x[rows] @ x[columns].T).double()
            distance = squares[rows, None] + squares[None, columns] - 2 * inner
            logits = distance.clamp_min(0) * -t
            if left == top:
                if len(logits) == 1:
                    continue  # a row with itself
                # Keep i < j: the diagonal holds self pairs, and below it each pair is repeated.
                upper = torch.ones_like(logits, dtype=torch.bool).triu(1)
                # An accelerator would have to tell the host the number of pairs that it keeps.
                few = reads_are_free(x.device)
                logits = logits[upper] if few else logits.masked_fill(~upper, -torch.inf)
            total = torch.logaddexp(total, torch.logsumexp(logits.flatten(), dim=0))
    pairs = torch.tensor(n * (n - 1) / 2, dtype=torch.float64)
    return total - pairs.log()


def align_uniform(
    x: Tensor, y: Tensor, *, weight: float = 1.0, alpha: float = 2.0, t: float = 2.0
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Compute alignment and uniformity as a loss:

    .. math:: L_{align}(x, y; \alpha) + \lambda \, (L_{uniform}(x; t) + L_{uniform}(y; t)) / 2

    Section 5 of arXiv 2005.10242. The uniformity of each view is over all pairs of its rows.
    Copies of a text count as pairs, so remove them first.

    Args:
        x: (n, d), n >= 2.
        y: (n, d), ``y[i]`` is the positive of ``x[i]``.
        weight: The weight λ of the uniformity, above 0.
        alpha: The exponent of the alignment.
        t: The temperature of the uniformity.

    Returns:
        Three float64 scalars: the loss, the alignment and the mean uniformity.

    Raises:
        ConfigError: See :func:`alignment` and :func:`uniformity`, or the weight is not above 0.

    Examples:
        >>> loss, alignment, uniformity = align_uniform(torch.eye(3), torch.eye(3))
        >>> round(float(loss), 4)
        -4.0
    """
    _positive(weight, "align_uniform", "weight")
    # Autocast would lower the precision of the products in `uniformity`.
    with full_precision(x.device):
        pulled = alignment(x, y, alpha)
        spread = (uniformity(x, t) + uniformity(y, t)) / 2
    return pulled + weight * spread, pulled, spread


def mean_cosine(x: Tensor, *, normalize: bool = True) -> Tensor:
    """Compute the mean cosine over all pairs of (n, d) rows, n >= 2, in O(n d).

    Raises:
        ConfigError: There are fewer than 2 rows, or a row is not finite or zero.

    Examples:
        >>> mean_cosine(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
        tensor(-0.3333, dtype=torch.float64)
    """
    x = _rows(x, "mean_cosine", normalize, least=2).double()
    n = len(x)
    return (x.sum(dim=0).square().sum() - x.square().sum()) / (n * (n - 1))


def dimension_std(x: Tensor, *, normalize: bool = True) -> Tensor:
    """Compute the mean over dimensions of the population standard deviation of the unit vectors.

    It is 0 if all of the (n, d) rows are equal, n >= 2, and at most ``1 / sqrt(d)``, for a centred
    set with equal variance in every dimension. The collapse check of SimSiam (arXiv 2011.10566,
    figure 2).

    Raises:
        ConfigError: There are fewer than 2 rows, or a row is not finite or zero.

    Examples:
        >>> dimension_std(torch.ones(4, 2))
        tensor(0., dtype=torch.float64)
    """
    x = _rows(x, "dimension_std", normalize, least=2).double()
    return x.std(dim=0, correction=0).mean()


def effective_rank(x: Tensor, *, normalize: bool = True) -> Tensor:
    """Compute the effective rank of (n, d) rows after centring, n >= 2.

    Roy & Vetterli 2007, "The effective rank: a measure of effective dimensionality":
    ``exp(-sum p_k log p_k)`` with the singular values ``p_k = s_k / sum(s)``, between 1 and
    ``min(n - 1, d)``, or 0 if all rows are equal. The singular values come from the (d, d)
    covariance, or from the (n, n) Gram matrix if that is smaller.

    Raises:
        ConfigError: There are fewer than 2 rows, or a row is not finite or zero.

    Examples:
        >>> round(float(effective_rank(torch.cat([torch.eye(3), -torch.eye(3)]))), 4)
        3.0
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
    # Rounding leaves about eps times the largest variance in the null space; its root would count.
    singular = variances[variances > noise * variances[-1]].sqrt()
    p = singular / singular.sum()
    return torch.exp(-(p * p.log()).sum())


def variance_spectrum(x: Tensor, *, chunk: int = 8192) -> Tensor:
    """Compute the variances along the principal axes, largest first.

    They are the squared singular values of the centred matrix divided by n. Extra memory is a
    (d, d) and a (chunk, d) float64 matrix.

    Args:
        x: (n, d), n >= 2. The rows are not normalised.
        chunk: The number of rows that are converted to float64 at a time.

    Returns:
        (d,) float64; their sum is the total variance.

    Raises:
        ConfigError: There are fewer than 2 rows, or values are not finite.

    Examples:
        >>> variance_spectrum(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
        tensor([1., 0.], dtype=torch.float64)
    """
    x = _rows(x, "variance_spectrum", normalize=False, least=2)
    mean = x.sum(dim=0, dtype=torch.float64) / len(x)
    products = x.new_zeros(x.shape[1], x.shape[1], dtype=torch.float64)
    for start in range(0, len(x), chunk):
        centred = x[start : start + chunk].double() - mean
        products += centred.T @ centred
    variances: Tensor = torch.linalg.eigvalsh(products / len(x)).flip(0).clamp_min(0)
    return variances


def iso_score(variances: Tensor) -> Tensor:
    r"""Compute IsoScore, the share of dimensions that are used evenly.

    With the variances :math:`\Sigma_D` along the principal axes,
    :math:`\hat\Sigma = \sqrt d \, \Sigma_D / \lVert \Sigma_D \rVert`, the isotropy defect
    :math:`\delta = \lVert \hat\Sigma - 1 \rVert / \sqrt{2 (d - \sqrt d)}` and
    :math:`\phi = (d - \delta^2 (d - \sqrt d))^2 / d^2`, it is :math:`(d \phi - 1) / (d - 1)`
    (Rudman et al. 2022, arXiv 2108.07344, section 4). Embeddings with equal variance along k of d
    axes score (k - 1) / (d - 1), from 0 for a line to 1. Follows
    https://github.com/bcbi-edu/p_eickhoff_isoscore/blob/4715aa41d526a03b0faab10e328cb409335a2c41/IsoScore.py

    Args:
        variances: (d,), d >= 2, not negative; see :func:`variance_spectrum`.

    Raises:
        ConfigError: There are fewer than 2 dimensions.

    Examples:
        >>> iso_score(torch.tensor([1.0, 1.0, 0.0]))
        tensor(0.5000, dtype=torch.float64)
    """
    d = variances.numel()
    if variances.ndim != 1 or d < 2:
        raise ConfigError(
            f"iso_score: got shape {tuple(variances.shape)}; give (d,), d of 2 or more"
        )
    values = variances.double()
    length = values.norm()
    if length == 0:
        return torch.zeros((), dtype=torch.float64, device=variances.device)
    root = d**0.5
    defect = (root * values / length - 1).norm() / (2 * (d - root)) ** 0.5
    share = (d - defect**2 * (d - root)) ** 2 / d**2
    score: Tensor = (d * share - 1) / (d - 1)
    return score


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
    if x.device.type == "mps":
        x = x.cpu()  # MPS has no float64
    if not x.is_floating_point():
        raise ConfigError(f"{function}: got dtype {x.dtype}; give floating point embeddings")
    # A loss on an accelerator does not wait for these checks: its value shows bad rows as NaN.
    checks = reads_are_free(x.device) or not x.requires_grad
    bad = int((~torch.isfinite(x)).any(dim=1).sum()) if checks else 0
    if bad:
        raise ConfigError(
            f"{function}: {bad} of {len(x)} rows hold NaN or infinity; "
            "drop them or fix the encoder that computed them"
        )
    if x.dtype in (torch.float16, torch.bfloat16):
        x = x.float()
    if not normalize:
        return x
    zero = int((x == 0).all(dim=1).sum()) if checks else 0
    if zero:
        raise ConfigError(
            f"{function}: {zero} of {len(x)} rows are all zeros and have no direction; drop them"
        )
    # Dividing by the largest entry first prevents overflow and underflow of the norm.
    return F.normalize(x / x.abs().amax(dim=1, keepdim=True), dim=1)
