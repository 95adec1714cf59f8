"""Search for the k most similar vectors: exact in tiles, or approximate with faiss."""

from __future__ import annotations

import logging
from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from simcse_kit.errors import ConfigError, MissingExtraError
from simcse_kit.utils.progress import progress_bar

__all__ = ["KEYS", "QUERIES", "Found", "approximate_top_k", "gpu_of", "require_faiss", "top_k"]

logger = logging.getLogger(__name__)

Found = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Scores and row numbers, ``(n, k)`` each, with the highest score first."""

QUERIES, KEYS = 1024, 16_384
"""Numbers of queries and keys that are compared at a time."""
# With this many training keys per cell, k-means finds cells as good as with all keys.
_KEYS_A_CELL = 64


def top_k(
    queries: NDArray[np.float32],
    keys: NDArray[np.float32],
    k: int,
    *,
    tile: tuple[int, int] = (QUERIES, KEYS),
    progress: bool = False,
    gpu: torch.device | None = None,
) -> Found:
    """Find the ``k`` keys with the largest inner product for each query.

    Of keys with equal scores, the first ones are found. Extra memory is one tile of scores. A GPU
    holds all keys; if they do not fit, the CPU compares them.

    Args:
        queries: ``(n, d)``; unit vectors give cosines.
        keys: ``(m, d)``.
        k: The number of keys, 1 to m.
        tile: The numbers of queries and keys that are compared at a time.
        progress: Show a progress bar on a terminal or in a notebook after two seconds.
        gpu: The GPU that compares; None for the CPU.

    Raises:
        ConfigError: ``k`` is not 1 to m.

    Examples:
        >>> keys = np.eye(3, dtype=np.float32)
        >>> scores, rows = top_k(np.array([[0.2, 0.9, 0.1]], dtype=np.float32), keys, k=2)
        >>> rows
        array([[1, 0]])
    """
    _check(k, len(keys))
    try:
        return _top_k(queries, keys, k, tile, progress, gpu or torch.device("cpu"))
    except torch.OutOfMemoryError:
        if gpu is None:
            raise
    logger.info("%s lacks memory for %s vectors; the CPU compares them", gpu, f"{len(keys):,}")
    return _top_k(queries, keys, k, tile, progress, torch.device("cpu"))


def gpu_of(encoder: object) -> torch.device | None:
    """Return the CUDA device of an encoder; None if it is on another device or has none."""
    device = getattr(encoder, "device", None)
    return device if isinstance(device, torch.device) and device.type == "cuda" else None


def _top_k(
    queries: NDArray[np.float32],
    keys: NDArray[np.float32],
    k: int,
    tile: tuple[int, int],
    progress: bool,
    device: torch.device,
) -> Found:
    against = torch.from_numpy(keys).to(device)
    scores = np.empty((len(queries), k), dtype=np.float32)
    rows = np.empty((len(queries), k), dtype=np.int64)
    with (
        torch.inference_mode(),
        progress_bar(len(queries), shown=progress, desc="searching", delay=2) as bar,
    ):
        for start in range(0, len(queries), tile[0]):
            part = torch.from_numpy(queries[start : start + tile[0]]).to(device)
            best, where = _best(part, against, k, tile[1])
            scores[start : start + len(part)] = best.cpu().numpy()
            rows[start : start + len(part)] = where.cpu().numpy()
            bar.update(len(part))
    return scores, rows


def _best(
    queries: torch.Tensor, keys: torch.Tensor, k: int, width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    best = queries.new_empty(len(queries), 0)
    where = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    for start in range(0, len(keys), width):
        values, places = _first_of_best(queries @ keys[start : start + width].T, k)
        best = torch.cat([best, values], dim=1)
        # The first of equal columns is kept, so columns with lower row numbers must come first.
        where, order = torch.cat([where, places + start], dim=1).sort(dim=1)
        best, kept = _first_of_best(best.gather(1, order), k)
        where = where.gather(1, kept)
    where, order = where.sort(dim=1)
    best, order = best.gather(1, order).sort(dim=1, descending=True, stable=True)
    return best, where.gather(1, order)


def _first_of_best(scores: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the ``k`` largest of each row, in any order; of equal scores the first ones."""
    k = min(k, scores.shape[1])
    values, places = scores.topk(k, dim=1, sorted=False)
    # topk returns any of the equal scores, which matters only if more than k qualify.
    tied = (scores >= values.amin(dim=1, keepdim=True)).sum(dim=1) > k
    if tied.any():
        ordered, order = scores[tied].sort(dim=1, descending=True, stable=True)
        values[tied], places[tied] = ordered[:, :k], order[:, :k]
    return values, places


def require_faiss() -> Any:
    """Import faiss.

    Raises:
        MissingExtraError: faiss is not installed.
    """
    try:
        return import_module("faiss")
    except ImportError:
        raise MissingExtraError("approximate search", "faiss") from None


def approximate_top_k(
    queries: NDArray[np.float32], keys: NDArray[np.float32], k: int, *, probes: int = 32
) -> Found:
    """Find most of the keys of :func:`top_k` with an inverted-file index of faiss.

    Keys are searched in the cells closest to a query. The at most 4 √m cells come from k-means
    with a fixed seed. If they hold fewer than ``k`` keys, the row ends with -1 and score -inf. Up
    to 10,000 keys are compared exactly.

    Args:
        queries: ``(n, d)``.
        keys: ``(m, d)``.
        k: The number of keys, 1 to m.
        probes: The number of cells that are searched.

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
