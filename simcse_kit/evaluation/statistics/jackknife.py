"""Spearman's correlation without each pair in turn, in n log n steps.

Leaving pair i out lowers the rank of every other pair by 1 where its value is larger than that of
pair i, and by a half where the two are tied. So the sums of the shorter correlation follow from
those of all pairs: rank sums over the pairs above pair i, and the number of pairs that are above
it on both sides, which a count over the binary digits of the ranks gives for all pairs at once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["leave_one_out"]

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


def leave_one_out(gold: Floats, predicted: Floats) -> Floats:
    """Spearman's correlation x100, ties averaged, without each pair in turn.

    Args:
        gold: (n,) grades, n >= 3.
        predicted: (m, n) scores of m models.

    Returns:
        (n, m); NaN where a side is constant without the pair.
    """
    pairs = len(gold)
    one = _Side(gold)
    found = np.empty((pairs, len(predicted)))
    for number, scores in enumerate(predicted):
        two = _Side(scores)
        # Of the n - 1 pairs left the ranks are r - u and s - v, with u and v 1 above pair i and
        # 1/2 in a tie; their mean is n / 2. Ranks are taken less (n + 1) / 2 here, so that the
        # mean left over is -1/2.
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
        codes: (n,) places of the values among the distinct ones, from 0.
        ranks: (n,) average ranks less their mean.
    """

    def __init__(self, values: Floats):
        _, self.codes, self._sizes = np.unique(values, return_inverse=True, return_counts=True)
        self._ends = np.cumsum(self._sizes)
        middle = self._ends - (self._sizes - 1) / 2 - (len(values) + 1) / 2
        self.ranks: Floats = middle[self.codes]

    def above(self) -> Floats:
        """(n,): how many other pairs have a larger value, ties counted half."""
        higher = len(self.codes) - self._ends + (self._sizes - 1) / 2
        return np.asarray(higher[self.codes], dtype=np.float64)

    def sums_above(self, weights: Floats) -> Floats:
        """(n,): the weights of the other pairs with a larger value, ties counted half."""
        groups = np.bincount(self.codes, weights=weights)
        higher = np.append(np.cumsum(groups[::-1])[::-1][1:], 0.0)
        return np.asarray((higher + groups / 2)[self.codes] - weights / 2)

    def spreads(self) -> Floats:
        """(n,): the sum of squared deviations of the ranks without each pair."""
        left = len(self.codes) - 1
        ties = self._sizes.astype(np.float64)
        cubes = (ties**3 - ties).sum() - 3 * ties * (ties - 1)
        spread = ((float(left) ** 3 - left) - cubes) / 12
        return np.asarray(spread[self.codes])


def _both_above(one: _Side, two: _Side) -> Floats:
    """(n,): the sum over the other pairs of u times v, each 1 above, 1/2 in a tie, 0 below."""
    # With signs: u v = (1 + s)(1 + t) / 4, where s t is 1 for the same order on both sides and -1
    # for opposite orders.
    others = len(one.codes) - 1
    same = _both_below(one.codes, two.codes) + _both_below(-one.codes, -two.codes)
    opposite = _both_below(one.codes, -two.codes) + _both_below(-one.codes, two.codes)
    signs = 2 * (one.above() + two.above()) - 2 * others
    return np.asarray((others + signs + same - opposite) / 4)


def _both_below(one: Counts, two: Counts) -> Counts:
    """(n,): how many pairs have smaller values on both sides."""
    # Among equal values of `one` the larger `two` goes first, so that ties are not counted.
    places = np.lexsort((-two, one))
    smaller = np.empty(len(one), dtype=np.int64)
    smaller[places] = _smaller_before((two - two.min())[places])
    return smaller


def _smaller_before(keys: Counts) -> Counts:
    """(n,): how many earlier entries are smaller; keys are 0 or more.

    A smaller key agrees in the leading binary digits down to one where it has 0 and the other 1.
    So for each digit the entries are grouped by their leading digits, in their order, and each
    with a 1 counts the zeros before it in its group.
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
