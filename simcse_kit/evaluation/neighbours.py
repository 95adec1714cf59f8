"""What the nearest neighbours of sentences tell of an embedding space."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import skew

from simcse_kit.errors import ConfigError
from simcse_kit.evaluation.embed import unit_rows
from simcse_kit.metrics.search import top_k

__all__ = ["NEIGHBOURS", "hubness", "nearest", "share_found"]

NEIGHBOURS = 10

Places = NDArray[np.int64]


def nearest(
    vectors: NDArray[np.float32],
    k: int = NEIGHBOURS,
    *,
    rows: Places | None = None,
    progress: bool = False,
) -> Places:
    """The k nearest others of every row by cosine: (n, k) row numbers, nearest first.

    Exact, in tiles; memory beyond the vectors and the result is that of a tile.

    Args:
        vectors: (n, d), of any length but 0.
        k: at most n - 1.
        rows: (q,) those whose neighbours are wanted; all if None.
        progress: a bar on stderr, after two seconds, on a terminal.

    Raises:
        ConfigError: k is not 1 to n - 1.
    """
    count = len(vectors)
    if not 1 <= k < count:
        raise ConfigError(f"nearest: k is {k} for {count} vectors; allowed: 1 to {count - 1}")
    unit = unit_rows(vectors)
    wanted = np.arange(count) if rows is None else rows
    _, places = top_k(unit if rows is None else unit[rows], unit, k + 1, progress=progress)
    own = places == wanted[:, None]
    # Where equal vectors have pushed a row out of its own list, the farthest goes in its place.
    own[~own.any(axis=1), -1] = True
    others: Places = places[~own].reshape(len(wanted), k)
    return others


def hubness(places: Places) -> float:
    """Skewness of the k-occurrences: how often each sentence is among the neighbours of others.

    0 where all are equally popular; large where a few hubs are everybody's neighbours
    (Radovanović, Nanopoulos, Ivanović 2010, "Hubs in space", JMLR 11, equation 1). NaN where all
    occur equally often.

    Args:
        places: (n, k), see :func:`nearest`.
    """
    occurrences = np.bincount(places.ravel(), minlength=len(places))
    if np.ptp(occurrences) == 0:
        return float("nan")
    return float(skew(occurrences))


def share_found(places: Places, rows: Places, partners: Places) -> float:
    """Share of pairs whose second sentence is among the neighbours of the first; NaN of none.

    Args:
        places: (n, k), see :func:`nearest`.
        rows: (p,) row of the first sentence of each pair.
        partners: (p,) row of the second. Pairs of one and the same row are not counted.
    """
    apart = rows != partners
    if not apart.any():
        return float("nan")
    found = (places[rows[apart]] == partners[apart, None]).any(axis=1)
    return float(found.mean())
