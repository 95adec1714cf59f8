"""The k most similar of many vectors: exact in tiles, or approximate by faiss."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from simcse_kit.errors import ConfigError, MissingExtraError
from simcse_kit.utils.progress import progress_bar

__all__ = ["Found", "approximate_top_k", "require_faiss", "top_k"]

Found = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Scores and row numbers, both ``(n, k)``, the highest score first."""

_QUERIES, _KEYS = 1024, 16_384
# So many in k-means make cells as good as all keys would.
_KEYS_A_CELL = 64


def top_k(
    queries: NDArray[np.float32],
    keys: NDArray[np.float32],
    k: int,
    *,
    tile: tuple[int, int] = (_QUERIES, _KEYS),
    progress: bool = False,
) -> Found:
    """The ``k`` keys with the largest inner product, for each query; of equals the first.

    Memory beyond the arguments and the result is that of one tile of scores.

    Args:
        queries: ``(n, d)``; unit vectors, for cosines.
        keys: ``(m, d)``.
        k: 1 to m.
        tile: queries and keys that are compared at a time.
        progress: a bar on a terminal or in a notebook, after two seconds.

    Raises:
        ConfigError: ``k`` is not 1 to m.
    """
    _check(k, len(keys))
    every, against = torch.from_numpy(queries), torch.from_numpy(keys)
    scores = np.empty((len(queries), k), dtype=np.float32)
    rows = np.empty((len(queries), k), dtype=np.int64)
    with (
        torch.inference_mode(),
        progress_bar(len(queries), shown=progress, desc="searching", delay=2) as bar,
    ):
        for start in range(0, len(queries), tile[0]):
            part = every[start : start + tile[0]]
            best, where = _best(part, against, k, tile[1])
            scores[start : start + len(part)] = best.numpy()
            rows[start : start + len(part)] = where.numpy()
            bar.update(len(part))
    return scores, rows


def _best(
    queries: torch.Tensor, keys: torch.Tensor, k: int, width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    best = queries.new_empty(len(queries), 0)
    where = torch.empty(len(queries), 0, dtype=torch.int64)
    for start in range(0, len(keys), width):
        values, places = _first_of_best(queries @ keys[start : start + width].T, k)
        best = torch.cat([best, values], dim=1)
        # Of equals the first column is kept: those with lower numbers must stand before.
        where, order = torch.cat([where, places + start], dim=1).sort(dim=1)
        best, kept = _first_of_best(best.gather(1, order), k)
        where = where.gather(1, kept)
    where, order = where.sort(dim=1)
    best, order = best.gather(1, order).sort(dim=1, descending=True, stable=True)
    return best, where.gather(1, order)


def _first_of_best(scores: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The ``k`` largest of each row, in any order; of equals the first ones."""
    k = min(k, scores.shape[1])
    values, places = scores.topk(k, dim=1, sorted=False)
    # topk takes any of the equals; only where more than k qualify does that matter.
    tied = (scores >= values.amin(dim=1, keepdim=True)).sum(dim=1) > k
    if tied.any():
        ordered, order = scores[tied].sort(dim=1, descending=True, stable=True)
        values[tied], places[tied] = ordered[:, :k], order[:, :k]
    return values, places


def require_faiss() -> Any:
    """The module faiss.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return import_module("faiss")
    except ImportError:
        raise MissingExtraError("approximate search", "faiss") from None


def approximate_top_k(
    queries: NDArray[np.float32], keys: NDArray[np.float32], k: int, *, probes: int = 32
) -> Found:
    """:func:`top_k` by an inverted file of faiss: keys are looked for in the cells near a query.

    Cells are made by k-means with a fixed seed, at most 4 √m of them. Where those near a query hold
    fewer than ``k`` keys, its row ends in -1 with score -inf. Up to 10,000 keys are all compared.

    Args:
        queries: ``(n, d)``.
        keys: ``(m, d)``.
        k: 1 to m.
        probes: cells that are looked at.

    Raises:
        MissingExtraError: faiss is not installed.
        ConfigError: ``k`` is not 1 to m.
    """
    faiss = require_faiss()
    _check(k, len(keys))
    dim = keys.shape[1]
    index = faiss.IndexFlatIP(dim)
    if len(keys) > 10_000:
        cells = min(int(4 * len(keys) ** 0.5), len(keys) // _KEYS_A_CELL)
        index = faiss.IndexIVFFlat(index, dim, cells, faiss.METRIC_INNER_PRODUCT)
        index.cp.spherical = True
        index.nprobe = min(probes, cells)
        chosen = np.random.default_rng(0).permutation(len(keys))[: _KEYS_A_CELL * cells]
        index.train(np.ascontiguousarray(keys[np.sort(chosen)]))
    index.add(np.ascontiguousarray(keys))
    scores, rows = index.search(np.ascontiguousarray(queries), k)
    scores[rows < 0] = -np.inf
    return scores, rows


def _check(k: int, keys: int) -> None:
    if not 1 <= k <= keys:
        raise ConfigError(f"the best {k} of {keys} vectors; allowed: 1 to {keys}")
