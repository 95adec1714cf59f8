"""The interface of search engines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from simcse_kit.errors import ConfigError
from simcse_kit.search.texts import Texts
from simcse_kit.search.vectors import Vectors

__all__ = ["Content", "Engine", "Previous"]


@dataclass(frozen=True)
class Previous:
    """The engine of the state before a change, which a new engine may continue.

    Attributes:
        folder: Folder with its files.
        settings: Settings that its :meth:`Engine.build` returned.
        rows: New row of each row of the old state; -1 for rows that a merge has dropped.
    """

    folder: Path
    settings: dict[str, Any]
    rows: NDArray[np.int64]

    @property
    def kept(self) -> int:
        """Number of rows of the new state that the old one had; they come first."""
        return int((self.rows >= 0).sum())


@dataclass(frozen=True)
class Content:
    """The state of an index that an engine is built for.

    Attributes:
        vectors: All vectors, deleted ones included.
        texts: Ids, texts and metadata of the same rows.
        settings: Settings that the user has chosen.
        previous: The engine before the change; None if there is none that can be continued.
    """

    vectors: Vectors
    texts: Texts
    settings: dict[str, Any]
    previous: Previous | None = None


class Engine(ABC):
    """A way to find the most similar vectors of an index.

    An engine is built once for every state of the index, and opened by every reader.

    Args:
        vectors: All vectors of the index.
        folder: Folder with the files that :meth:`build` wrote.
        settings: The settings that :meth:`build` returned.

    Attributes:
        outside: Whether :meth:`build` also keeps data outside of its folder.
    """

    outside: ClassVar[bool] = False

    def __init__(self, vectors: Vectors, folder: Path, settings: dict[str, Any]):
        self.vectors = vectors
        self.folder = folder
        self.settings = settings

    @classmethod  # noqa: B027
    def require(cls) -> None:
        """Check that the packages of the engine are installed.

        Raises:
            MissingExtraError: One is missing.
        """

    @classmethod
    def build(cls, content: Content, folder: Path) -> dict[str, Any]:  # noqa: ARG003
        """Write the files of the engine.

        Args:
            content: The state of the index.
            folder: Empty folder for the files, which the index flushes, records and verifies.

        Returns:
            Settings and measurements as JSON values, which are kept in the manifest. An approximate
            engine reports its recall as ``recall@10``.
        """
        return {}

    @classmethod  # noqa: B027
    def discard(cls, folder: Path, settings: dict[str, Any]) -> None:
        """Remove what a replaced engine kept outside of its folder.

        Args:
            folder: Folder of the index.
            settings: Settings that :meth:`build` returned.
        """

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

    def filtered(self, expression: str) -> Engine:  # noqa: ARG002
        """Return an engine that finds only documents whose metadata meet a condition.

        Args:
            expression: The condition.

        Raises:
            ConfigError: The engine has no filters.
        """
        raise ConfigError(
            "this engine has no filters; build the index with --engine milvus, or leave out "
            "--filter and select by the metadata of the results"
        )

    def matching(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which rows meet the condition of a filtered engine."""
        return np.ones(len(rows), dtype=np.bool_)
