"""How evenly embeddings use their dimensions: the spectrum of their covariance, and IsoScore."""

from __future__ import annotations

import torch
from torch import Tensor

from simcse_kit.errors import ConfigError

__all__ = ["iso_score", "variance_spectrum"]


def variance_spectrum(x: Tensor, *, chunk: int = 8192) -> Tensor:
    """Variances along the principal axes, largest first: (d,) float64, in sum the whole variance.

    The squares of the singular values of the centred matrix, over n. Memory beyond ``x`` is that of
    (d, d) and (chunk, d) float64.

    Args:
        x: (n, d), n >= 2.
        chunk: rows that are taken to float64 at a time.

    Raises:
        ConfigError: fewer than 2 rows, or non-finite values.
    """
    if x.ndim != 2 or len(x) < 2 or not bool(torch.isfinite(x).all()):
        raise ConfigError(
            f"variance_spectrum: got shape {tuple(x.shape)}; give (n, d) finite embeddings of at "
            "least 2 rows"
        )
    mean = x.sum(dim=0, dtype=torch.float64) / len(x)
    products = x.new_zeros(x.shape[1], x.shape[1], dtype=torch.float64)
    for start in range(0, len(x), chunk):
        centred = x[start : start + chunk].double() - mean
        products += centred.T @ centred
    variances: Tensor = torch.linalg.eigvalsh(products / len(x)).flip(0).clamp_min(0)
    return variances


def iso_score(variances: Tensor) -> Tensor:
    r"""IsoScore of a cloud with these variances along its principal axes: float64 scalar.

    With :math:`\hat\Sigma = \sqrt d \, \Sigma_D / \lVert \Sigma_D \rVert`, the isotropy defect
    :math:`\delta = \lVert \hat\Sigma - 1 \rVert / \sqrt{2 (d - \sqrt d)}` and
    :math:`\phi = (d - \delta^2 (d - \sqrt d))^2 / d^2`, it is :math:`(d \phi - 1) / (d - 1)`
    (Rudman et al. 2022, arXiv 2108.07344, section 4). A cloud that is spread evenly over k of d
    dimensions has (k - 1) / (d - 1): 1 where all are used alike, 0 where it is a line.

    Args:
        variances: (d,), d >= 2, not negative; see :func:`variance_spectrum`.

    Raises:
        ConfigError: fewer than 2 dimensions.
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
