"""The interface of search engines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcse_kit.search.vectors import Vectors

__all__ = ["Engine"]


class Engine(ABC):
    """A way to find the most similar vectors of an index.

    An engine is built once for every state of the index, and opened by every reader.

    Args:
        vectors: All vectors of the index.
        folder: Folder with the files that :meth:`build` wrote.
        settings: The settings that :meth:`build` returned.
    """

    def __init__(self, vectors: Vectors, folder: Path, settings: dict[str, Any]):
        self.vectors = vectors
        self.folder = folder
        self.settings = settings

    @classmethod
    def build(cls, vectors: Vectors, folder: Path) -> dict[str, Any]:  # noqa: ARG003
        """Write the files of the engine.

        Args:
            vectors: All vectors of the index, deleted ones included.
            folder: Empty folder for the files, which the index flushes, records and verifies.

        Returns:
            Settings and measurements as JSON values, which are kept in the manifest. An approximate
            engine reports its recall as ``recall@10``.
        """
        return {}

    @abstractmethod
    def search(
        self, queries: NDArray[np.float32], top_k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Find the most similar vectors that are not deleted.

        Args:
            queries: ``(q, d)`` unit vectors.
            top_k: Number of results per query, 1 to the number of rows that are not deleted.

        Returns:
            Cosines and row numbers, ``(q, top_k)`` each, with the highest cosine first, and of
            equal cosines the lowest row. Rows of -1 fill up where fewer are found.
        """
