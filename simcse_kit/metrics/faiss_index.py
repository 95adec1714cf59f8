"""Approximate search with faiss: HNSW graphs, and inverted files with product quantization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from simcse_kit.metrics.blocked_search import rescore, top_k_in_blocks
from simcse_kit.metrics.recall import ArrayVectors, VectorSource, recall_measure, sample_rows
from simcse_kit.metrics.search import Found, require_faiss

__all__ = ["FaissIndex", "FaissPlan", "faiss_top_k", "plan_for"]

HNSW_ROWS = 4_000_000
"""Largest number of rows for which an HNSW graph is chosen."""

_RECALL = 0.97
_EFFORT, _MOST_EFFORT = 32, 1024
# Numbers of training vectors per cell and per code word, within the limits of faiss (39 to 256).
_TRAINING_ROWS = 64
# Rounding can change the order of neighbors with nearly equal scores.
_MORE = 8


@dataclass(frozen=True)
class FaissPlan:
    """The structure of a faiss index.

    Attributes:
        kind: "hnsw", a graph over the float32 vectors; or "ivfpq", an inverted file of cells with
            product-quantized vectors.
        links: Number of links per vector of the graph.
        cells: Number of cells of the inverted file.
        code_bytes: Number of bytes of a quantized vector, a divisor of the number of dimensions.
    """

    kind: Literal["hnsw", "ivfpq"]
    links: int = 0
    cells: int = 0
    code_bytes: int = 0


def plan_for(rows: int, dim: int) -> FaissPlan:
    """Choose the structure of a faiss index by its size.

    Up to 4 million vectors, a graph with 32 links per vector (Malkov and Yashunin 2018, arXiv
    1603.09320) is fastest, and takes 256 bytes per vector in addition to the float32 vectors.
    Larger sets are quantized to one byte for four dimensions, in 8 √n cells. The numbers follow
    https://github.com/facebookresearch/faiss/wiki/Guidelines-to-choose-an-index, which recommends
    HNSW with 4 to 64 links if memory suffices, and 4 √n to 16 √n cells.

    Args:
        rows: Number of vectors.
        dim: Number of dimensions.

    Examples:
        >>> plan_for(1_000_000, 256).kind, plan_for(9_000_000, 256).cells
        ('hnsw', 24000)
    """
    if rows <= HNSW_ROWS:
        return FaissPlan("hnsw", links=32)
    code_bytes = max(n for n in range(1, max(1, dim // 4) + 1) if dim % n == 0)
    return FaissPlan("ivfpq", cells=int(8 * rows**0.5), code_bytes=code_bytes)


class FaissIndex:
    """A faiss index over the rows of a source, whose candidates are rescored with the vectors.

    Make one with :meth:`build`.

    Args:
        source: The vectors.
        index: Object of faiss.
        rows: ``(ntotal,)``, row of each vector of the faiss index; -1 if the vector is not a row
            of the source any more.
        effort: Number of candidates that the search of a graph keeps (``efSearch``), or number of
            cells that are searched (``nprobe``).

    Attributes:
        index: Object of faiss.
        rows: Row of each vector of the faiss index.
        effort: See above.

    Examples:
        >>> vectors = np.eye(64, dtype=np.float32)
        >>> index = FaissIndex.build(ArrayVectors(vectors), plan_for(64, 64))
        >>> index.search(vectors[3:5], 1)[1]
        array([[3],
               [4]])
    """

    def __init__(
        self, source: VectorSource, index: Any, rows: NDArray[np.int64], effort: int = _EFFORT
    ):
        self.index = index
        self.rows = rows
        self.effort = effort
        self._source = source
        self._graph = hasattr(index, "hnsw")
        self._select()

    @classmethod
    def build(cls, source: VectorSource, plan: FaissPlan) -> FaissIndex:
        """Index all rows of a source that can be found.

        A graph that several threads build is not the same every time.

        Args:
            source: Unit vectors.
            plan: Structure of the index.

        Raises:
            MissingExtraError: faiss is not installed.
        """
        faiss = require_faiss()
        dim, metric = source.dim, faiss.METRIC_INNER_PRODUCT
        if plan.kind == "hnsw":
            index = faiss.IndexHNSWFlat(dim, plan.links, metric)
        else:
            quantizer = faiss.IndexFlatIP(dim)
            index = faiss.IndexIVFPQ(quantizer, dim, plan.cells, plan.code_bytes, 8, metric)
            index.cp.spherical = True
            index.train(source.take(sample_rows(source, _TRAINING_ROWS * max(plan.cells, 256))))
        found = cls(source, index, np.empty(0, dtype=np.int64))
        found.extend(0)
        return found

    def extend(self, first: int) -> None:
        """Add the rows of the source from number ``first`` on."""
        added = [self.rows]
        for start, vectors, counted in self._source.blocks():
            rows = np.arange(start, start + len(vectors), dtype=np.int64)
            kept = rows >= first if counted is None else (rows >= first) & counted
            if kept.any():
                self.index.add(np.ascontiguousarray(vectors[kept], dtype=np.float32))
                added.append(rows[kept])
        self.rows = np.concatenate(added)
        self._select()

    @property
    def dead(self) -> int:
        """Number of vectors of the faiss index that cannot be found any more."""
        return len(self.rows) - self._count

    def search(self, queries: NDArray[np.float32], k: int) -> Found:
        """Find most of the ``k`` nearest rows of each query.

        Where faiss finds fewer than ``k``, the query is compared with every vector.

        Args:
            queries: ``(q, d)`` unit vectors.
            k: Number of rows, 1 to the number of rows that can be found.

        Returns:
            Cosines, computed from the vectors of the source, and row numbers, ``(q, k)`` each.
        """
        faiss = require_faiss()
        # Quantized scores are coarse, so that more candidates are rescored.
        wanted = min(k + _MORE if self._graph else max(10 * k, 100), self._count)
        options = {"sel": self._selector} if self._selector is not None else {}
        if self._graph:
            params = faiss.SearchParametersHNSW(efSearch=max(self.effort, wanted), **options)
        else:
            params = faiss.SearchParametersIVF(nprobe=self.effort, **options)
        _, places = self.index.search(np.ascontiguousarray(queries), wanted, params=params)
        rows = np.where(places < 0, -1, self.rows[places])
        scores, rows = rescore(queries, rows, self._source.take, k)
        short = rows[:, -1] < 0
        if short.any():
            exact = top_k_in_blocks(queries[short], self._source.blocks(), k)
            scores[short], rows[short] = rescore(queries[short], exact[1], self._source.take, k)
        return scores, rows

    def tune(self) -> float:
        """Measure recall@10, and raise the effort by half until it is 0.97 or the effort is 1024.

        Returns:
            The recall; see :func:`recall_measure`.
        """
        recall_of = recall_measure(self._source)
        recall = recall_of(self.search)
        while recall < _RECALL and self.effort < _MOST_EFFORT:
            self.effort = min(-(-3 * self.effort // 2), _MOST_EFFORT)
            recall = recall_of(self.search)
        return recall

    def _select(self) -> None:
        """Find which vectors of the faiss index can be found."""
        kept = self.rows >= 0
        if self._source.alive is not None and len(kept):
            kept &= self._source.alive[self.rows]
        self._count = int(kept.sum())
        self._selector = None
        if self._count < len(kept):
            # faiss keeps a pointer to the bits.
            self._bits = np.packbits(kept, bitorder="little")
            self._selector = require_faiss().IDSelectorBitmap(self._bits)


def faiss_top_k(
    queries: NDArray[np.float32], keys: NDArray[np.float32], k: int
) -> tuple[Found, float]:
    """Find most of the ``k`` nearest keys of each query with the index that :func:`plan_for` names.

    Args:
        queries: ``(q, d)`` unit vectors.
        keys: ``(n, d)`` unit vectors.
        k: Number of keys, 1 to n.

    Returns:
        Cosines and row numbers, ``(q, k)`` each, and the recall@10 on a sample of the keys.

    Raises:
        MissingExtraError: faiss is not installed.
    """
    index = FaissIndex.build(ArrayVectors(keys), plan_for(*keys.shape))
    recall = index.tune()
    return index.search(queries, k), recall
