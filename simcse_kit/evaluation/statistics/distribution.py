"""Bootstrap distribution of a statistic, with an interval and a p-value that agree.

The interval at level 1 - alpha lies between two quantiles of the draws. The p-value for "the true
value is 0" is the smallest alpha whose interval excludes 0, solved from the same formula. So
p < alpha exactly if the interval at 1 - alpha excludes 0 (Efron and Tibshirani 1993, "An
introduction to the bootstrap", chapters 13 and 14).

Plain quantiles give the percentile interval. A correction for bias and acceleration gives the BCa
interval (Efron 1987, "Better bootstrap confidence intervals", JASA 82, pages 171-185), as in
scipy's `_bca_interval
<https://github.com/scipy/scipy/blob/00192de8cc35c2ce5c652d0b6486483792064ceb/scipy/stats/_resampling.py>`_,
except that ties with the estimate count half. BCa has the best coverage for a single correlation,
whose draws are skewed. For the difference of two equally good models the draws are symmetric, and
the corrections only add noise: with 30 pairs BCa finds a difference in 8 % of trials instead of 5 %
(evaluation/statistics).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

__all__ = ["Distribution", "least_resamples"]

Floats = NDArray[np.float64]


def least_resamples(level: float, tests: int = 1) -> int:
    """Return the smallest number of resamples that can give a p-value below ``1 - level``.

    The smallest p-value of B resamples is 2 / (B + 1) (Davison and Hinkley 1997, "Bootstrap
    methods and their application", section 4.4). Holm's correction multiplies the smallest p-value
    by the number of tests.

    Args:
        level: Confidence level of the verdict.
        tests: Number of p-values that are corrected together.

    Examples:
        >>> least_resamples(0.95), least_resamples(0.95, tests=7)
        (40, 280)
    """
    alpha = 1 - level
    least = math.ceil(2 * tests / alpha)
    while tests * (2 / (least + 1)) >= alpha:
        least += 1
    return least


class Distribution:
    """The bootstrap distribution of one statistic.

    The quantile of share s is the (B + 1) s-th smallest of B draws, interpolated, and limited to
    the extreme draws (Davison and Hinkley 1997, section 5.2).

    Args:
        draws: (B,) finite values of the resamples.
        bias: Bias of the median of the draws, as a normal deviate; 0 for percentile intervals.
        acceleration: Acceleration of the standard error; 0 for percentile intervals.

    Examples:
        >>> found = Distribution(np.linspace(-1, 3, 999))
        >>> [round(end, 2) for end in found.interval(0.9)], round(found.p_value(), 2)
        ([-0.8, 2.8], 0.5)
    """

    def __init__(self, draws: Floats, *, bias: float = 0.0, acceleration: float = 0.0):
        self._draws = np.sort(draws)
        self._bias = bias
        self._acceleration = acceleration

    @classmethod
    def corrected(cls, draws: Floats, estimate: float, acceleration: float) -> Distribution:
        """Make the distribution that gives BCa intervals.

        The bias follows Efron and Tibshirani 1993, equation 14.14.

        Args:
            draws: (B,) finite values of the resamples.
            estimate: The statistic on all pairs.
            acceleration: A sixth of the skewness of the jackknife influences.
        """
        below = float(np.sum(draws < estimate) + np.sum(draws == estimate) / 2) / len(draws)
        # With all draws on one side the bias would be infinite.
        edge = 0.5 / len(draws)
        bias = float(ndtri(min(max(below, edge), 1 - edge)))
        return cls(draws, bias=bias, acceleration=acceleration)

    def interval(self, level: float) -> tuple[float, float]:
        """Return lower and upper end of the interval at ``level``."""
        z = float(ndtri((1 + level) / 2))
        low, high = np.quantile(
            self._draws, [self._share(-z), self._share(z)], method="weibull"
        ).tolist()
        return low, high

    def p_value(self) -> float:
        """Return the smallest alpha whose interval excludes 0, at least 2 / (B + 1); two-sided."""
        draws = self._draws
        not_above = int(np.searchsorted(draws, 0.0, side="right"))
        below = int(np.searchsorted(draws, 0.0, side="left"))
        alphas = [1.0]
        if not_above < len(draws):  # the lower end can lie above 0
            alphas.append(2 * float(ndtr(self._deviate(self._share_of_zero(not_above)))))
        if below > 0:  # the upper end can lie below 0
            alphas.append(2 * float(ndtr(-self._deviate(self._share_of_zero(below)))))
        return max(min(alphas), 2 / (len(draws) + 1))

    def _share(self, deviate: float) -> float:
        """Map a normal deviate to a share of the draws (Efron and Tibshirani 1993, eq. 14.10)."""
        moved = self._bias + deviate
        rest = 1 - self._acceleration * moved
        # At the pole of the formula the interval has reached the extreme draw.
        return float(ndtr(self._bias + moved / rest)) if rest > 0 else float(moved > 0)

    def _deviate(self, share: float) -> float:
        """Invert :meth:`_share`."""
        if not 0 < share < 1:
            return math.copysign(math.inf, share - 0.5)
        moved = float(ndtri(share)) - self._bias
        rest = 1 + self._acceleration * moved
        return moved / rest - self._bias if rest > 0 else math.copysign(math.inf, moved)

    def _share_of_zero(self, before: int) -> float:
        """Return the share whose quantile is 0, which lies after the first ``before`` draws.

        If all draws are on one side of 0, the share is 0 or 1.
        """
        if before in (0, len(self._draws)):
            return before / len(self._draws)
        last, following = float(self._draws[before - 1]), float(self._draws[before])
        return (before - last / (following - last)) / (len(self._draws) + 1)
