"""Spearman's correlation of many resamples of the same pairs, with a single sort.

A resample of n pairs gives each pair a weight, the number of times it was drawn. Cumulative sums
of the weights in sorted order give the average ranks of the resample. So the pairs are sorted once,
and every resample costs a few passes over n numbers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simcse_kit.evaluation.statistics.jackknife import leave_one_out

__all__ = ["WeightedRanks"]

Floats = NDArray[np.float64]


class WeightedRanks:
    """Graded pairs with the cosines of one or more models.

    Args:
        gold: (n,) human scores.
        predicted: (m, n) cosines of m models.

    Examples:
        >>> ranks = WeightedRanks(np.array([1.0, 2.0, 3.0]), np.array([[1.0, 3.0, 2.0]]))
        >>> ranks.correlations(np.array([[1.0, 1.0], [1.0, 0.0], [1.0, 2.0]])).round(6).tolist()
        [[50.0], [100.0]]
    """

    def __init__(self, gold: Floats, predicted: Floats):
        self._gold_values, self._predicted = gold, predicted
        self._gold = _Order(gold)
        self._models = [_Order(row) for row in predicted]
        self.pairs = len(gold)
        self.models = len(predicted)

    def correlations(self, weights: Floats) -> Floats:
        """Compute Spearman's correlation x100 of each model in each resample, ties averaged.

        Args:
            weights: (n, r) counts of each pair in each of r resamples.

        Returns:
            (r, m); NaN if one side of a resample is constant.
        """
        resamples = weights.shape[1]
        if resamples == 1:  # one-dimensional passes are faster
            weights = weights[:, 0]
        sums, ranks = self._gold.centred_ranks(weights[self._gold.order])
        spread = np.einsum("g...,g...,g...->...", sums, ranks, ranks)
        found = np.empty((resamples, self.models))
        for number, model in enumerate(self._models):
            own = weights[model.order]
            gold = ranks[self._gold.group[model.order]]
            model_sums, model_ranks = model.centred_ranks(own)
            model_spread = np.einsum("g...,g...,g...->...", model_sums, model_ranks, model_ranks)
            own *= gold
            both = np.einsum("g...,g...->...", model.sum_groups(own), model_ranks)
            with np.errstate(invalid="ignore", divide="ignore"):
                found[:, number] = 100.0 * both / np.sqrt(spread * model_spread)
        return found

    def leave_one_out(self) -> Floats:
        """Compute the (n, m) correlations x100 without each pair in turn, in n log n steps."""
        return leave_one_out(self._gold_values, self._predicted)


class _Order:
    """The sorted order of n values, with their ties.

    Attributes:
        order: (n,) indices of the values, lowest first.
        group: (n,) number of the tie group of each value, in the given order.
    """

    def __init__(self, values: Floats):
        self.order = np.argsort(values, kind="stable")
        ordered = values[self.order]
        new = np.ones(len(values), dtype=bool)
        new[1:] = ordered[1:] != ordered[:-1]
        self._starts = None if new.all() else np.flatnonzero(new)
        self.group = np.empty(len(values), dtype=np.intp)
        self.group[self.order] = np.cumsum(new) - 1

    def sum_groups(self, ordered: Floats) -> Floats:
        """Sum (n, ...) values in sorted order over the g tie groups: (g, ...)."""
        if self._starts is None:
            return ordered
        sums: Floats = np.add.reduceat(ordered, self._starts, axis=0)
        return sums

    def centred_ranks(self, ordered: Floats) -> tuple[Floats, Floats]:
        """Return weight and centred average rank of each tie group.

        Args:
            ordered: (n, ...) weights in sorted order.

        Returns:
            Two arrays (g, ...).
        """
        sums = self.sum_groups(ordered)
        ranks = np.cumsum(sums, axis=0)
        # The last value of a group has rank `ranks`, the first has that minus its weight plus 1.
        # The mean rank of all values is (total weight + 1) / 2.
        shift = ranks[-1] / 2
        ranks -= sums / 2
        ranks -= shift
        return sums, ranks
