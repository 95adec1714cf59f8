"""Nearest neighbours of sentences, and measures of an embedding space that use them."""

from __future__ import annotations

import numpy as np
import torch
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
    gpu: torch.device | None = None,
) -> Places:
    """Find the k nearest other rows of each row by cosine, exactly and in tiles.

    Args:
        vectors: (n, d) non-zero vectors.
        k: number of neighbours, at most n - 1.
        rows: (q,) numbers of the rows to search for; None for all n.
        progress: show a progress bar.
        gpu: GPU that compares the vectors; None for the CPU.

    Returns:
        (q, k) row numbers, nearest first.

    Raises:
        ConfigError: k is not between 1 and n - 1.

    Examples:
        >>> vectors = np.array([[1, 0], [0.9, 0.1], [0, 1]], dtype=np.float32)
        >>> nearest(vectors, 1).tolist()
        [[1], [0], [1]]
    """
    count = len(vectors)
    if not 1 <= k < count:
        raise ConfigError(f"nearest: k is {k} for {count} vectors; allowed: 1 to {count - 1}")
    unit = unit_rows(vectors)
    wanted = np.arange(count) if rows is None else rows
    queries = unit if rows is None else unit[rows]
    _, places = top_k(queries, unit, k + 1, progress=progress, gpu=gpu)
    own = places == wanted[:, None]
    # Equal vectors can push a row out of its own list; the farthest entry is dropped instead.
    own[~own.any(axis=1), -1] = True
    others: Places = places[~own].reshape(len(wanted), k)
    return others


def hubness(places: Places) -> float:
    """Compute the skewness of the k-occurrences.

    The k-occurrence of a sentence is the number of sentences that it is a neighbour of. The
    skewness is large if a few hubs are neighbours of most sentences, and NaN if all k-occurrences
    are equal (Radovanović, Nanopoulos, Ivanović 2010, "Hubs in space", JMLR 11, equation 1).

    Args:
        places: (n, k) neighbours, see :func:`nearest`.
    """
    occurrences = np.bincount(places.ravel(), minlength=len(places))
    if np.ptp(occurrences) == 0:
        return float("nan")
    return float(skew(occurrences))


def share_found(places: Places, rows: Places, partners: Places) -> float:
    """Compute the share of pairs whose second sentence is a neighbour of the first.

    Args:
        places: (n, k) neighbours, see :func:`nearest`.
        rows: (p,) row of the first sentence of each pair.
        partners: (p,) row of the second sentence. Pairs of a row with itself are not counted.

    Returns:
        The share, 0 to 1; NaN without pairs.
    """
    apart = rows != partners
    if not apart.any():
        return float("nan")
    found = (places[rows[apart]] == partners[apart, None]).any(axis=1)
    return float(found.mean())
