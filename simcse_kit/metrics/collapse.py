"""Whether embeddings are collapsing: all sentences to one point, or to a few directions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from simcse_kit.losses.similarity import unit_rows
from simcse_kit.metrics.geometry import dimension_std, effective_rank, mean_cosine

__all__ = ["Spread", "collapse_of", "spread_of"]

# Raw transformers lie in a narrow cone (mean cosine 0.99 occurs), so that a number is no sign by
# itself: it must be small, and must have fallen.
_POINT = 0.1
_FALL = 0.5
_RANK_FALL = 0.25


@dataclass(frozen=True)
class Spread:
    """How far apart embeddings lie.

    Attributes:
        spread: standard deviation of the unit vectors, averaged over the dimensions, times √d: 0
            where all are one point, at most 1 (the check of SimSiam, arXiv 2011.10566, figure 2).
        mean_cosine: over all pairs of rows; 1 where all have one direction.
        effective_rank: of the centred unit vectors; 0 where all are one point, else 1 or more.
    """

    spread: float
    mean_cosine: float
    effective_rank: float

    def __str__(self) -> str:
        return (
            f"spread {self.spread:.3f}, mean cosine {self.mean_cosine:.3f}, "
            f"effective rank {self.effective_rank:.1f}"
        )


@torch.no_grad()
def spread_of(vectors: Tensor) -> Spread:
    """Measure a batch of embeddings; no gradient.

    Args:
        vectors: (n, d), n of 2 or more. A vector of zeros counts as the centre of the sphere.

    Raises:
        ConfigError: fewer than 2 rows, or non-finite values.
    """
    unit = unit_rows(vectors)
    measured = [
        dimension_std(unit, normalize=False) * math.sqrt(unit.shape[1]),
        mean_cosine(unit, normalize=False),
        effective_rank(unit, normalize=False),
    ]
    return Spread(*torch.stack(measured).tolist())


def collapse_of(now: Spread, start: Spread) -> str | None:
    """The name of the collapse; None where there is none.

    ``complete``: the spread is below 0.1 and below half of that at the start. ``dimensional``: the
    effective rank, less 1, is below a quarter of that at the start, so that the embeddings lie in
    few directions though they are not one point.

    Args:
        now: of a batch.
        start: of a batch of as many rows, before training.
    """
    if now.spread < _POINT and now.spread < _FALL * start.spread:
        return "complete"
    # Above 1, which a single direction has: of a small batch even a full rank is not much more.
    now_above, start_above = (max(x.effective_rank, 1.0) - 1 for x in (now, start))
    if now_above < _RANK_FALL * start_above:
        return "dimensional"
    return None
