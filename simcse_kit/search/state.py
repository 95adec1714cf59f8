"""One state of an index, opened for reading."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from threading import Lock

import numpy as np

from simcse_kit.errors import DataError
from simcse_kit.search.engine import Engine
from simcse_kit.search.hybrid import Lexical
from simcse_kit.search.manifest import Manifest, read_manifest
from simcse_kit.search.settings import ENGINES
from simcse_kit.search.texts import TEXTS, Texts
from simcse_kit.search.vectors import Vectors

__all__ = ["State", "open_state"]

_TRIES = 5


class State:
    """The vectors, texts and engine of one state of an index, which never change.

    Args:
        folder: Folder of the index.
        manifest: The state.

    Attributes:
        manifest: The state.
        vectors: All vectors.
        texts: All texts.
        engine: The search engine.

    Raises:
        DataError: A file is damaged.
        FileNotFoundError: Another process has changed the index in the meantime.
    """

    def __init__(self, folder: Path, manifest: Manifest):
        self.manifest = manifest
        manifest.check_files(folder)
        self.vectors = Vectors(folder, manifest)
        self.texts = Texts(folder / segment.name / TEXTS for segment in manifest.segments)
        if len(self.texts) != len(self.vectors):
            raise DataError(
                f"the index has {len(self.texts):,} texts and {len(self.vectors):,} vectors; build "
                "it again with --overwrite",
                file=folder,
            )
        place = folder / (manifest.engine.folder or "")
        kind: type[Engine] = ENGINES.resolve(manifest.engine.name)
        self.engine = kind(self.vectors, place, manifest.engine.settings)
        self._lexical: Lexical | None = None
        self._lexical_lock = Lock()

    def __len__(self) -> int:
        """Number of rows that are not deleted."""
        return self.manifest.count

    @property
    def lexical(self) -> Lexical:
        """BM25 over the texts, built at the first hybrid search of this state."""
        with self._lexical_lock:  # one build, however many threads ask for it
            if self._lexical is None:
                self._lexical = Lexical(self.texts, self.vectors.alive)
            return self._lexical

    def verify(self, folder: Path) -> None:
        """Read all files and compare their checksums.

        Raises:
            DataError: A file has changed.
        """
        self.manifest.check_files(folder, whole=True)
        self.texts.check()

    @property
    def deleted(self) -> list[int]:
        """Numbers of the deleted rows."""
        alive = self.vectors.alive
        found: list[int] = [] if alive is None else np.flatnonzero(~alive).tolist()
        return found

    def ids(self) -> list[str]:
        """Return the ids of the rows that are not deleted."""
        alive = self.vectors.alive
        names = self.texts.ids()
        return names if alive is None else [n for n, kept in zip(names, alive, strict=True) if kept]

    def rows_of(self, ids: Collection[str]) -> dict[str, int]:
        """Find rows that are not deleted by their ids; unknown ids are left out."""
        wanted, alive = set(ids), self.vectors.alive
        return {
            name: row
            for row, name in enumerate(self.texts.ids())
            if name in wanted and (alive is None or alive[row])
        }

    def known_rows(self, ids: Collection[str], folder: Path) -> list[int]:
        """Find rows that are not deleted by their ids.

        Args:
            ids: The ids.
            folder: Folder of the index, for messages.

        Raises:
            DataError: An id is unknown.
        """
        places = self.rows_of(ids)
        for name in ids:
            if name not in places:
                raise DataError(
                    f"the index has no document {name!r}, and nothing was removed; leave this id "
                    "out",
                    file=folder,
                )
        return list(places.values())


def open_state(folder: Path) -> State:
    """Open the current state of an index.

    Raises:
        DataError: The folder holds no index, or a file is missing or has changed.
    """
    for _ in range(_TRIES):
        manifest = read_manifest(folder)
        try:
            return State(folder, manifest)
        except FileNotFoundError:
            # Another process changed the index twice since the manifest was read.
            continue
    raise DataError(
        "the files of the index change faster than they can be opened; try again", file=folder
    )
