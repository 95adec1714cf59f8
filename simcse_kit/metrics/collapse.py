"""Detection of collapse: embeddings that become one point or lie in a few directions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from simcse_kit.losses.similarity import unit_rows
from simcse_kit.metrics.geometry import dimension_std, effective_rank, mean_cosine

__all__ = ["Spread", "collapse_of", "spread_of"]

# The embeddings of raw transformers lie in a narrow cone (a mean cosine of 0.99 occurs), so a small
# spread alone is not a sign of collapse. It must also have fallen during training.
_POINT = 0.1
_FALL = 0.5
_RANK_FALL = 0.25


@dataclass(frozen=True)
class Spread:
    """The spread of embeddings on the unit sphere.

    Attributes:
        spread: The mean standard deviation of the dimensions of the unit vectors, times √d: from
            0 (all equal) to 1 (the check of SimSiam, arXiv 2011.10566, figure 2).
        mean_cosine: The mean cosine of all pairs of rows, 1 if all have the same direction.
        effective_rank: The effective rank of the centred unit vectors, 0 if all are equal and
            otherwise 1 or more.
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
    """Measure the spread of a batch of embeddings, without gradient.

    Args:
        vectors: (n, d), n of 2 or more. A zero vector counts as the centre of the sphere.

    Raises:
        ConfigError: There are fewer than 2 rows, or values are not finite.

    Examples:
        >>> print(spread_of(torch.cat([torch.eye(3), -torch.eye(3)])))
        spread 1.000, mean cosine -0.200, effective rank 3.0
    """
    unit = unit_rows(vectors)
    measured = [
        dimension_std(unit, normalize=False) * math.sqrt(unit.shape[1]),
        mean_cosine(unit, normalize=False),
        effective_rank(unit, normalize=False),
    ]
    return Spread(*torch.stack(measured).tolist())


def collapse_of(now: Spread, start: Spread) -> str | None:
    """Decide whether embeddings have collapsed.

    A collapse is ``complete`` if the spread is below 0.1 and below half of that before training.
    It is ``dimensional`` if the effective rank minus 1 is below a quarter of that before training,
    so that the embeddings are not one point but lie in few directions.

    Args:
        now: The spread of a batch.
        start: The spread of a batch of the same size before training.

    Returns:
        ``"complete"``, ``"dimensional"``, or None.

    Examples:
        >>> collapse_of(Spread(0.01, 0.99, 5.0), start=Spread(0.8, 0.3, 40.0))
        'complete'
    """
    if now.spread < _POINT and now.spread < _FALL * start.spread:
        return "complete"
    # The rank above 1, that of a single direction: in a small batch, a full rank is not much more.
    now_above, start_above = (max(x.effective_rank, 1.0) - 1 for x in (now, start))
    if now_above < _RANK_FALL * start_above:
        return "dimensional"
    return None
