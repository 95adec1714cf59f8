"""Spearman's correlation without each pair in turn, in n log n steps.

Without pair i, the rank of every other pair falls by 1 if its value is larger than that of pair i,
and by a half if the two are tied. So the sums of the shorter correlation follow from the sums of
all pairs, rank sums over the pairs above pair i, and the number of pairs above pair i on both
sides. A count over the binary digits of the ranks gives this number for all pairs at once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["leave_one_out"]

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


def leave_one_out(gold: Floats, predicted: Floats) -> Floats:
    """Compute Spearman's correlation x100, ties averaged, without each pair in turn.

    Args:
        gold: (n,) human scores, n >= 3.
        predicted: (m, n) scores of m models.

    Returns:
        (n, m); NaN if a side is constant without the pair.

    Examples:
        >>> gold, scores = np.array([1.0, 2.0, 3.0, 4.0]), np.array([[1.0, 2.0, 4.0, 3.0]])
        >>> leave_one_out(gold, scores)[:, 0].round(6).tolist()
        [50.0, 50.0, 100.0, 100.0]
    """
    pairs = len(gold)
    one = _Side(gold)
    found = np.empty((pairs, len(predicted)))
    for number, scores in enumerate(predicted):
        two = _Side(scores)
        # The ranks of the n - 1 remaining pairs are r - u and s - v, where u and v are 1 above
        # pair i and 1/2 in a tie; their mean is n / 2. Here (n + 1) / 2 is subtracted from all
        # ranks, so that the remaining mean is -1/2.
        products = float(one.ranks @ two.ranks) - one.ranks * two.ranks
        products -= one.sums_above(two.ranks) + two.sums_above(one.ranks)
        products += _both_above(one, two)
        products -= (pairs - 1) / 4
        with np.errstate(invalid="ignore", divide="ignore"):
            found[:, number] = 100.0 * products / np.sqrt(one.spreads() * two.spreads())
    return found


class _Side:
    """One side of the pairs.

    Attributes:
        codes: (n,) ranks of the values among the distinct values, from 0.
        ranks: (n,) centred average ranks.
    """

    def __init__(self, values: Floats):
        _, self.codes, self._sizes = np.unique(values, return_inverse=True, return_counts=True)
        self._ends = np.cumsum(self._sizes)
        middle = self._ends - (self._sizes - 1) / 2 - (len(values) + 1) / 2
        self.ranks: Floats = middle[self.codes]

    def above(self) -> Floats:
        """Count the other pairs with a larger value, ties as one half: (n,)."""
        higher = len(self.codes) - self._ends + (self._sizes - 1) / 2
        return np.asarray(higher[self.codes], dtype=np.float64)

    def sums_above(self, weights: Floats) -> Floats:
        """Sum the weights of the other pairs with a larger value, ties as one half: (n,)."""
        groups = np.bincount(self.codes, weights=weights)
        higher = np.append(np.cumsum(groups[::-1])[::-1][1:], 0.0)
        return np.asarray((higher + groups / 2)[self.codes] - weights / 2)

    def spreads(self) -> Floats:
        """Compute the sum of squared deviations of the ranks without each pair: (n,)."""
        left = len(self.codes) - 1
        ties = self._sizes.astype(np.float64)
        cubes = (ties**3 - ties).sum() - 3 * ties * (ties - 1)
        spread = ((float(left) ** 3 - left) - cubes) / 12
        return np.asarray(spread[self.codes])


def _both_above(one: _Side, two: _Side) -> Floats:
    """Sum u times v over the other pairs, each 1 above, 1/2 in a tie and 0 below: (n,)."""
    # With signs s and t: u v = (1 + s)(1 + t) / 4, where s t is 1 if both sides have the same
    # order, and -1 if they have opposite orders.
    others = len(one.codes) - 1
    same = _both_below(one.codes, two.codes) + _both_below(-one.codes, -two.codes)
    opposite = _both_below(one.codes, -two.codes) + _both_below(-one.codes, two.codes)
    signs = 2 * (one.above() + two.above()) - 2 * others
    return np.asarray((others + signs + same - opposite) / 4)


def _both_below(one: Counts, two: Counts) -> Counts:
    """Count the pairs with smaller values on both sides: (n,)."""
    # Among equal values of `one` the larger `two` comes first, so that ties do not count.
    places = np.lexsort((-two, one))
    smaller = np.empty(len(one), dtype=np.int64)
    smaller[places] = _smaller_before((two - two.min())[places])
    return smaller


def _smaller_before(keys: Counts) -> Counts:
    """Count the earlier entries that are smaller: (n,); keys are not negative.

    Two keys share their leading binary digits up to the first digit that differs, where the smaller
    key has a 0. So for each digit the entries are grouped by their leading digits, in their order,
    and each entry with a 1 counts the zeros before it in its group.
    """
    found = np.zeros(len(keys), dtype=np.int64)
    order = np.arange(len(keys))
    for digit in range(int(keys.max()).bit_length() - 1, -1, -1):
        leading = keys[order] >> digit
        is_one = (leading & 1).astype(bool)
        zeros = np.cumsum(~is_one)
        group = leading >> 1
        starts = np.flatnonzero(np.append(True, group[1:] != group[:-1]))
        before = zeros[starts] - ~is_one[starts]
        lengths = np.diff(np.append(starts, len(keys)))
        found[order[is_one]] += (zeros - np.repeat(before, lengths))[is_one]
        order = order[np.argsort(leading, kind="stable")]
    return found
