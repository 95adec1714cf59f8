"""The engine faiss: approximate search with recall measured at build time."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcse_kit.errors import DataError
from simcse_kit.metrics.faiss_index import FaissIndex, FaissPlan, plan_for
from simcse_kit.metrics.search import require_faiss
from simcse_kit.search.engine import Content, Engine
from simcse_kit.search.segments import REMEDY, save_array
from simcse_kit.search.vectors import open_array
from simcse_kit.utils.files import replacement

__all__ = ["FaissEngine"]

_INDEX, _ROWS = "index.faiss", "rows.npy"


class FaissEngine(Engine):
    """Approximate search with an HNSW graph, or with an inverted file beyond 4 million vectors.

    New vectors are added to the existing structure, and deleted ones are passed over. It is built
    again when most of its vectors are deleted, when its kind changes, or when the inverted file has
    twice the vectors that its cells were trained for.
    """

    def __init__(self, *given: Any):
        super().__init__(*given)
        # Open files stay readable when a later state replaces them.
        self._content = _mapped(self.folder / _INDEX)
        self._rows = np.array(open_array(self.folder / _ROWS))
        self._lock = Lock()

    @classmethod
    def require(cls) -> None:
        """Check that faiss is installed; see :meth:`Engine.require`."""
        require_faiss()

    @classmethod
    def build(cls, content: Content, folder: Path) -> dict[str, Any]:
        """Write the files of the engine; see :meth:`Engine.build`."""
        faiss = require_faiss()
        vectors = content.vectors
        plan = plan_for(vectors.count, vectors.dim)
        index = _continued(content, plan)
        trained = vectors.count
        if index is None:
            index = FaissIndex.build(vectors, plan)
        elif content.previous is not None:
            trained = content.previous.settings["built_for"]
        recall = index.tune()
        with replacement(folder / _INDEX, remedy=REMEDY) as path:
            try:
                faiss.write_index(index.index, str(path))
            except RuntimeError as error:
                raise OSError(f"faiss failed: {_first_line(error)}") from None
        save_array(folder / _ROWS, index.rows)
        return {
            "recall@10": round(recall, 4),
            "kind": plan.kind,
            "efSearch" if plan.kind == "hnsw" else "nprobe": index.effort,
            "built_for": trained,
        }

    def search(
        self, queries: NDArray[np.float32], top_k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Find most of the most similar vectors; see :meth:`Engine.search`."""
        with self._lock:  # one thread reads the file
            index = self._index
        return index.search(queries, top_k)

    @cached_property
    def _index(self) -> FaissIndex:
        """The index, read from its file at the first search."""
        faiss = require_faiss()
        try:
            index = faiss.deserialize_index(self._content)
        except RuntimeError as error:
            raise _damaged(self.folder / _INDEX, _first_line(error)) from None
        rows, most = self._rows, len(self.vectors)
        if (index.d, index.ntotal) != (self.vectors.dim, len(rows)) or (rows >= most).any():
            raise _damaged(self.folder / _INDEX, "it does not fit the vectors of the index")
        return FaissIndex(self.vectors, index, rows, _effort(self.settings))


def _continued(content: Content, plan: FaissPlan) -> FaissIndex | None:
    """Add the new rows to the index of the previous state, if it can be continued."""
    previous = content.previous
    if previous is None or previous.settings["kind"] != plan.kind:
        return None
    if plan.kind == "ivfpq" and content.vectors.count > 2 * previous.settings["built_for"]:
        return None
    old = open_array(previous.folder / _ROWS)
    rows = np.where(old < 0, -1, previous.rows[old]) if len(old) else np.array(old)
    try:
        index = require_faiss().read_index(str(previous.folder / _INDEX))
    except RuntimeError as error:
        raise _damaged(previous.folder / _INDEX, _first_line(error)) from None
    found = FaissIndex(content.vectors, index, rows, _effort(previous.settings))
    if 2 * found.dead > len(rows):
        return None
    found.extend(previous.kept)
    return found


def _effort(settings: dict[str, Any]) -> int:
    return int(settings["efSearch" if settings["kind"] == "hnsw" else "nprobe"])


def _mapped(path: Path) -> NDArray[np.uint8]:
    return np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(
        f"not a readable faiss index ({reason}); build the index again with --overwrite", file=path
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().rpartition(": ")[2].partition("\n")[0]
