"""SearchIndex: build, change, save, load and search a collection of sentences."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ConfigError
from simcse_kit.search import store
from simcse_kit.search.documents import Document, identified
from simcse_kit.search.encoding import check_encoder, encode_segment, new_manifest
from simcse_kit.search.find import find
from simcse_kit.search.hits import Hit
from simcse_kit.search.manifest import Manifest, read_manifest
from simcse_kit.search.merge import remove_more, remove_replaced
from simcse_kit.search.queries import check_queries, check_search
from simcse_kit.search.settings import IndexSettings
from simcse_kit.search.state import State, open_state

__all__ = ["SearchIndex"]

_DEFAULTS = IndexSettings()


class SearchIndex:
    """A collection of sentences in a folder, searched by the cosine similarity of their vectors.

    Make one with :meth:`build` or :meth:`load`. Several processes and threads may search an index
    while one process changes it: they see the state that they opened until :meth:`refresh`.

    Args:
        folder: Folder of the index.
        encoder: Encoder of the index; None for an index that is searched by vectors only.

    Attributes:
        folder: Folder of the index.

    Examples:
        >>> from simcse_kit import SentenceEncoder
        >>> encoder = SentenceEncoder.load("small")
        >>> index = SearchIndex.build(encoder, ["A dog runs.", "Prices rose.", "It rains."])
        >>> index.add(["The market fell."])
        1
        >>> [[hit.text for hit in hits] for hits in index.search(["A puppy runs."], top_k=1)]
        [['A dog runs.']]
        >>> index.remove(["1"])
        1
        >>> index.search(["A puppy runs."], threshold=0.9)
        [[]]
        >>> len(index)
        3
    """

    def __init__(self, folder: Path, encoder: SentenceEncoder | None):
        self.folder = folder
        self._encoder = encoder
        self._state: State = open_state(folder)
        if encoder is not None:
            check_encoder(encoder, self._state.manifest.encoder, folder)

    @classmethod
    def load(
        cls, folder: str | os.PathLike[str], encoder: SentenceEncoder | None = None
    ) -> SearchIndex:
        """Open an index.

        The manifest and both ends of every file are verified; :meth:`verify` reads all.

        Args:
            folder: Folder of the index.
            encoder: Encoder that the index was built with; None to search by vectors only.

        Raises:
            DataError: The folder holds no index, or a file is missing or has changed.
            ConfigError: The encoder is another one.
        """
        return cls(Path(folder), encoder)

    @classmethod
    def build(
        cls,
        encoder: SentenceEncoder,
        documents: Iterable[str | Document],
        folder: str | os.PathLike[str] | None = None,
        settings: IndexSettings = _DEFAULTS,
    ) -> SearchIndex:
        """Encode documents and make an index of them.

        After an interruption the same call continues: finished shards of vectors are kept.

        Args:
            encoder: Encoder, loaded from a folder or by its name.
            documents: Texts, or documents with ids and metadata.
            folder: Folder of the index; None for a temporary one that is removed with the object.
            settings: Precision, engine and prompts.

        Raises:
            ConfigError: The folder cannot be used or written, or another process changes it.
            DataError: A document is not a text, is blank, or has an id that occurs twice.
        """
        made = Path(tempfile.mkdtemp()) if folder is None else None
        place = made or Path(str(folder))
        before = store.check_place(place, overwrite=settings.overwrite)
        try:
            with store.writing(place):
                before = store.check_place(place, overwrite=settings.overwrite)
                manifest = new_manifest(encoder, settings, before)
                chosen = identified(documents, taken=set(), next_id=1)
                after = encode_segment(place, manifest, encoder, chosen, progress=settings.progress)
                store.publish(place, before, after)
        except BaseException:
            if made is not None:
                shutil.rmtree(made, ignore_errors=True)
            with suppress(OSError):  # not if it holds what the next call continues
                place.rmdir()
            raise
        index = cls(place, encoder)
        if made is not None:
            finalize(index, shutil.rmtree, made, ignore_errors=True)
        return index

    def add(
        self,
        documents: Iterable[str | Document],
        *,
        overwrite: bool = False,
        progress: bool = False,
    ) -> int:
        """Encode further documents and add them.

        Args:
            documents: Texts, or documents with ids and metadata.
            overwrite: Whether documents of the index with the same ids are replaced.
            progress: Whether a progress bar is shown on a terminal.

        Returns:
            Number of added documents.

        Raises:
            ConfigError: The index has no encoder, the folder cannot be written, or another process
                changes it.
            DataError: A document is not a text, is blank, or has an id that is in use.
        """
        encoder = self._needed_encoder()
        with store.writing(self.folder):
            state = self._current()
            before = state.manifest
            taken = set() if overwrite else set(state.ids())
            chosen = identified(documents, taken=taken, next_id=before.next_id)
            manifest = replace(before, generation=before.generation + 1)
            after = encode_segment(self.folder, manifest, encoder, chosen, progress=progress)
            added = after.count - before.count
            if overwrite and added:
                after = remove_replaced(self.folder, state, after)
            store.publish(self.folder, before, after)
        self.refresh()
        return added

    def remove(self, ids: Iterable[str]) -> int:
        """Remove documents.

        Args:
            ids: Ids of the documents; each may be given several times.

        Returns:
            Number of removed documents.

        Raises:
            DataError: An id is not in the index; nothing is removed then.
            ConfigError: The folder cannot be written, or another process changes it.
        """
        wanted = [ids] if isinstance(ids, str) else list(dict.fromkeys(ids))
        with store.writing(self.folder):
            state = self._current()
            before = state.manifest
            rows = state.known_rows(wanted, self.folder)
            manifest = replace(before, generation=before.generation + 1)
            after = remove_more(self.folder, state, manifest, rows)
            store.publish(self.folder, before, after)
        self.refresh()
        return len(wanted)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Copy the index to another folder, which must not exist or be empty.

        Raises:
            ConfigError: The folder holds something, or cannot be written.
        """
        place = Path(folder)
        store.check_place(place, overwrite=False)
        with store.writing(place):
            store.copy_state(self.folder, place, self._state.manifest)

    def refresh(self) -> bool:
        """Open the current state, if another process has changed the index.

        Returns:
            Whether the state has changed.

        Raises:
            DataError: The folder holds no index any more, or a file has changed.
            ConfigError: The index was replaced by one of another encoder.
        """
        if read_manifest(self.folder) == self._state.manifest:
            return False
        state = open_state(self.folder)
        if self._encoder is not None:
            check_encoder(self._encoder, state.manifest.encoder, self.folder)
        self._state = state
        return True

    def search(
        self,
        queries: Sequence[str],
        top_k: int = 5,
        threshold: float | None = None,
        *,
        hybrid: bool = False,
        filter: str | None = None,
    ) -> list[list[Hit]]:
        """Find the documents that are most similar to each query.

        Args:
            queries: Queries, none blank. Too long ones are truncated, and a log line says so.
            top_k: Largest number of documents per query.
            threshold: Lowest cosine of a document, -1 to 1; None for no limit.
            hybrid: Whether the ranking by cosine is joined with one by BM25.
            filter: Condition on the metadata in the language of Milvus, such as ``year > 2000``,
                for the engine ``milvus``; None for all documents.

        Returns:
            For each query its documents, the best one first; of equal ones the one that was added
            first. Fewer than ``top_k`` if the index or the threshold has no more.

        Raises:
            DataError: A query is not a text, is blank, or is longer than 100,000 characters.
            ConfigError: ``top_k``, the threshold or the filter is not allowed, or the index has no
                encoder.
            MissingExtraError: The package for hybrid search or the engine is missing.
        """
        check_search(top_k, threshold)
        texts = check_queries(queries)
        encoder = self._needed_encoder()
        if not texts:
            return []
        prompt = self._state.manifest.encoder.query_prompt
        vectors = encoder.encode(texts, normalize=True, prompt=prompt)
        given = texts if hybrid else None
        return self.search_vectors(vectors, top_k, threshold, texts=given, filter=filter)

    def search_vectors(
        self,
        vectors: NDArray[np.float32],
        top_k: int = 5,
        threshold: float | None = None,
        *,
        texts: Sequence[str] | None = None,
        filter: str | None = None,
    ) -> list[list[Hit]]:
        """Find the documents that are most similar to each vector.

        Args:
            vectors: ``(q, d)`` vectors of length 1, such as those of ``encode_query`` with
                ``normalize=True``.
            top_k: As for :meth:`search`.
            threshold: As for :meth:`search`.
            texts: Texts of the queries, for hybrid search; None to rank by the cosines alone.
            filter: As for :meth:`search`.

        Returns:
            As :meth:`search`.

        Raises:
            DataError: The vectors have another shape, or hold NaN or infinity.
            SimcseError: As for :meth:`search`.
        """
        return find(self._state, vectors, top_k, threshold, texts=texts, filter=filter)

    def verify(self) -> None:
        """Read all files and compare their checksums.

        Raises:
            DataError: A file has changed.
        """
        self._state.verify(self.folder)

    @property
    def manifest(self) -> Manifest:
        """The state of the index: its encoder, settings, counts and files."""
        return self._state.manifest

    def __len__(self) -> int:
        """Number of documents."""
        return len(self._state)

    def _current(self) -> State:
        """Return the newest state, with which a change begins."""
        self.refresh()
        return self._state

    def _needed_encoder(self) -> SentenceEncoder:
        if self._encoder is None:
            raise ConfigError(
                "the index was opened without an encoder; open it with SearchIndex.load(folder, "
                "encoder)"
            )
        return self._encoder
