"""Spearman's correlation of many weighted versions of the same pairs, without sorting again.

A resample of n pairs is a weight for each of them. Its average ranks follow from cumulative sums of
the weights in the order of the whole set, so that the sort is done once and every resample costs a
few passes over n numbers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simcse_kit.evaluation.statistics.jackknife import leave_one_out

__all__ = ["WeightedRanks"]

Floats = NDArray[np.float64]


class WeightedRanks:
    """Graded pairs with the cosines of several models.

    Args:
        gold: (n,) grades.
        predicted: (m, n) cosines of m models.
    """

    def __init__(self, gold: Floats, predicted: Floats):
        self._gold_values, self._predicted = gold, predicted
        self._gold = _Order(gold)
        self._models = [_Order(row) for row in predicted]
        self.pairs = len(gold)
        self.models = len(predicted)

    def correlations(self, weights: Floats) -> Floats:
        """Spearman's correlation x100 of each model under each weighting, ties averaged.

        Args:
            weights: (n, r), how often each pair counts in each of r versions.

        Returns:
            (r, m); NaN where one side of a version is constant.
        """
        if weights.shape[1] == 1:
            return self._of_one(weights[:, 0])[None]
        sums, ranks = self._gold.centred_ranks(weights)
        spread = np.einsum("gr,gr,gr->r", sums, ranks, ranks)
        found = np.empty((weights.shape[1], self.models))
        for number, model in enumerate(self._models):
            # Rows are gathered, which copies r numbers at a time.
            own = weights[model.order]
            gold = ranks[self._gold.group[model.order]]
            model_sums, model_ranks = model.centred_ranks_of_ordered(own)
            model_spread = np.einsum("gr,gr,gr->r", model_sums, model_ranks, model_ranks)
            own *= gold
            both = np.einsum("gr,gr->r", model.sum_groups(own), model_ranks)
            with np.errstate(invalid="ignore", divide="ignore"):
                found[:, number] = 100.0 * both / np.sqrt(spread * model_spread)
        return found

    def _of_one(self, weights: Floats) -> Floats:
        """(m,): the same of weights (n,), in whole passes, which many pairs take less time in."""
        sums, ranks = self._gold.centred_ranks(weights)
        spread = np.einsum("g,g,g->", sums, ranks, ranks)
        gold = ranks[self._gold.group]
        found = np.empty(self.models)
        for number, model in enumerate(self._models):
            own = weights[model.order]
            model_sums, model_ranks = model.centred_ranks_of_ordered(own)
            model_spread = np.einsum("g,g,g->", model_sums, model_ranks, model_ranks)
            own *= gold[model.order]
            both = np.einsum("g,g->", model.sum_groups(own), model_ranks)
            with np.errstate(invalid="ignore", divide="ignore"):
                found[number] = 100.0 * both / np.sqrt(spread * model_spread)
        return found

    def leave_one_out(self) -> Floats:
        """The correlations x100 without each pair in turn: (n, m); in n log n steps."""
        return leave_one_out(self._gold_values, self._predicted)


class _Order:
    """The order of n values, and which of them are tied.

    Attributes:
        order: (n,) places of the values, lowest first.
        group: (n,) number of its tie group, for each value in the given order.
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
        """(n, r) in :attr:`order` to the sums (g, r) of the tie groups."""
        if self._starts is None:
            return ordered
        sums: Floats = np.add.reduceat(ordered, self._starts, axis=0)
        return sums

    def centred_ranks(self, weights: Floats) -> tuple[Floats, Floats]:
        """Weight and average rank, less the mean rank, of each tie group: both (g, r)."""
        return self.centred_ranks_of_ordered(weights[self.order])

    def centred_ranks_of_ordered(self, ordered: Floats) -> tuple[Floats, Floats]:
        """The same of weights that are in :attr:`order` already."""
        sums = self.sum_groups(ordered)
        ranks = np.cumsum(sums, axis=0)
        # The last of a group has rank `ranks`, the first that less its weight, plus 1; the mean
        # rank of all is half the total weight and a half.
        shift = ranks[-1] / 2
        ranks -= sums / 2
        ranks -= shift
        return sums, ranks
