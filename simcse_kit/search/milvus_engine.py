"""The engine milvus: vectors and metadata in a Milvus server or a local Milvus Lite database."""

from __future__ import annotations

import json
import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcse_kit.errors import ConfigError, MissingExtraError
from simcse_kit.metrics.blocked_search import rescore
from simcse_kit.metrics.recall import recall_measure
from simcse_kit.search.documents import Identified
from simcse_kit.search.engine import Content, Engine
from simcse_kit.search.segments import save_array
from simcse_kit.search.settings import DATABASE
from simcse_kit.search.vectors import Vectors, open_array

__all__ = ["MilvusEngine"]

_KEYS, _DEAD = "keys.npy", "dead.npy"
_KEY, _VECTOR = "simcse_key", "simcse_vector"
_MOST = 16_384
"""Largest number of results of a search in Milvus."""

_BATCH_ROWS = 1000
_NO_COLLECTION = 100
"""Code of Milvus for a collection that does not exist."""


class MilvusEngine(Engine):
    """Search in a collection of Milvus, with filters over the metadata.

    Every document has a key that never changes, and is upserted under it. A change first deletes
    the documents that the state before it does not find, and then upserts new ones under keys that
    this state ignores. Repeating an interrupted change therefore gives the same collection, and
    the state before the change remains complete. The fields of the metadata are fields of the
    entities; so is ``id``, unless the metadata have it.
    """

    outside = True

    def __init__(self, vectors: Vectors, folder: Path, settings: dict[str, Any]):
        super().__init__(vectors, folder, settings)
        self._keys = np.array(open_array(folder / _KEYS))
        self._dead = len(open_array(folder / _DEAD))
        self._filter: str | None = None

    @classmethod
    def require(cls) -> None:
        """Check that pymilvus is installed; see :meth:`Engine.require`."""
        if find_spec("pymilvus") is None:
            raise MissingExtraError("the engine milvus", "milvus")

    @classmethod
    def build(cls, content: Content, folder: Path) -> dict[str, Any]:
        """Write the documents that Milvus lacks; see :meth:`Engine.build`."""
        vectors, previous = content.vectors, content.previous
        settings = content.settings
        uri = settings["uri"]
        client = _client(uri, folder.parent)
        with _reported(uri):
            if previous is None:
                settings = {
                    "uri": uri,
                    "collection": f"simcse_{secrets.token_hex(8)}",
                    "next_key": 0,
                }
                _create(client, settings["collection"], vectors.dim)
                keys = dead = np.empty(0, dtype=np.int64)
                first = 0
            else:
                keys, dead = open_array(previous.folder / _KEYS), np.array([], dtype=np.int64)
                _delete(client, settings["collection"], open_array(previous.folder / _DEAD))
                dead = keys[previous.rows < 0]
                keys = keys[previous.rows >= 0]
                first = previous.kept
            next_key = settings["next_key"] + len(vectors) - first
            keys = np.concatenate([keys, np.arange(settings["next_key"], next_key)])
            if vectors.alive is not None:
                dead = np.concatenate([dead, keys[~vectors.alive]])
            documents = zip(keys, content.texts.documents(), strict=True)
            _upsert(client, settings["collection"], documents, vectors, first)
        save_array(folder / _KEYS, keys)
        save_array(folder / _DEAD, dead)
        built = {**settings, "next_key": next_key}
        recall = recall_measure(vectors)(cls(vectors, folder, built).search)
        return {**built, "recall@10": round(recall, 4)}

    @classmethod
    def discard(cls, folder: Path, settings: dict[str, Any]) -> None:
        """Drop the collection; see :meth:`Engine.discard`."""
        with _reported(settings["uri"]):
            _client(settings["uri"], folder).drop_collection(settings["collection"])

    def search(
        self, queries: NDArray[np.float32], top_k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Find the most similar vectors; see :meth:`Engine.search`.

        Raises:
            ConfigError: Milvus cannot be reached, refuses the filter, or more than 16,384 results
                are wanted.
        """
        if top_k > _MOST:
            raise ConfigError(
                f"{top_k:,} results are wanted, and Milvus finds at most {_MOST:,}; lower --top-k"
            )
        # Deleted documents are in the collection until the next change.
        limit = min(top_k + self._dead, _MOST)
        rows = np.full((len(queries), limit), -1, dtype=np.int64)
        with _reported(self.settings["uri"], self._filter):
            found = self._opened.search(
                self.settings["collection"],
                list(queries),
                filter=self._condition(),
                limit=limit,
                search_params={"metric_type": "IP"},
                anns_field=_VECTOR,
            )
        for place, hits in enumerate(found):
            keys = np.array([hit[_KEY] for hit in hits], dtype=np.int64)
            rows[place, : len(keys)] = self._rows_of(keys)
        scores, rows = rescore(queries, rows, self.vectors.take, top_k)
        return scores, rows

    def filtered(self, expression: str) -> Engine:
        """Return an engine with a condition in the language of Milvus; see the base class."""
        if not expression.strip():
            raise ConfigError("--filter is blank; write a condition such as year > 2000")
        engine = MilvusEngine(self.vectors, self.folder, self.settings)
        engine._opened = self._opened
        engine._filter = expression
        return engine

    def matching(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which rows meet the condition; see :meth:`Engine.matching`."""
        if self._filter is None or not len(rows):
            return super().matching(rows)
        condition = f"{self._condition()} and {_KEY} in {self._keys[rows].tolist()}"
        with _reported(self.settings["uri"], self._filter):
            found = self._opened.query(
                self.settings["collection"], filter=condition, output_fields=[_KEY]
            )
        matched: NDArray[np.bool_] = np.isin(self._keys[rows], [entity[_KEY] for entity in found])
        return matched

    @cached_property
    def _opened(self) -> Any:
        """The client, whose collection is loaded at the first search."""
        client = _client(self.settings["uri"], self.folder.parent)
        with _reported(self.settings["uri"]):
            client.load_collection(self.settings["collection"])
        return client

    def _condition(self) -> str:
        # Larger keys belong to a change that is not complete.
        known = f"{_KEY} < {self.settings['next_key']}"
        return known if self._filter is None else f"{known} and ({self._filter})"

    def _rows_of(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the row of each key; -1 for deleted ones."""
        places = np.searchsorted(self._keys, keys)
        places[places == len(self._keys)] = 0
        known = self._keys[places] == keys
        if self.vectors.alive is not None:
            known &= self.vectors.alive[places]
        return np.where(known, places, -1)


def _client(uri: str | None, folder: Path) -> Any:
    """Connect to a server, or open the database in the folder of an index."""
    MilvusEngine.require()
    # Failed calls are reported by errors, and pymilvus would log a traceback as well.
    for name in ("pymilvus", "milvus_lite"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    if uri is None and find_spec("milvus_lite") is None:
        raise MissingExtraError("a local Milvus database", "milvus")
    milvus = import_module("pymilvus")
    with _reported(uri):
        if uri is not None:
            return milvus.MilvusClient(uri, token=os.environ.get("MILVUS_TOKEN", ""), timeout=10)
        try:
            return milvus.MilvusClient(str(folder / DATABASE))
        except milvus.exceptions.ConnectionConfigException:
            raise ConfigError(
                f"{folder / DATABASE} cannot be opened; a local Milvus database serves one process "
                "at a time: wait until the other one has ended, or use a server with --uri"
            ) from None


@contextmanager
def _reported(uri: str | None, expression: str | None = None) -> Iterator[None]:
    """Turn errors of Milvus inside the block into ours."""
    error_type = import_module("pymilvus").exceptions.MilvusException
    try:
        yield
    except error_type as error:
        if error.code == _NO_COLLECTION:
            raise ConfigError(
                "the collection of the index is not in Milvus any more: the index was built again, "
                "or the collection was dropped; open the index again, and if that fails, build it "
                "again with --overwrite"
            ) from None
        message = " ".join(str(getattr(error, "message", error)).split())
        if expression is not None:
            raise ConfigError(
                f"Milvus refuses --filter {expression!r}: {message}; write a condition such as "
                'source == "news" and year > 2000'
            ) from None
        where = "the local database" if uri is None else uri
        raise ConfigError(
            f"Milvus ({where}) reports: {message}; check that the server runs and that "
            "MILVUS_TOKEN is correct, then run the same command again"
        ) from None


def _create(client: Any, name: str, dim: int) -> None:
    kinds = import_module("pymilvus").DataType
    schema = client.create_schema(auto_id=False, enable_dynamic_field=True)
    schema.add_field(_KEY, kinds.INT64, is_primary=True)
    schema.add_field(_VECTOR, kinds.FLOAT_VECTOR, dim=dim)
    index = client.prepare_index_params()
    index.add_index(_VECTOR, index_type="AUTOINDEX", metric_type="IP")
    client.create_collection(name, schema=schema, index_params=index, consistency_level="Strong")


def _delete(client: Any, name: str, keys: NDArray[np.int64]) -> None:
    client.load_collection(name)
    for start in range(0, len(keys), _BATCH_ROWS):
        client.delete(name, ids=keys[start : start + _BATCH_ROWS].tolist())


def _upsert(
    client: Any,
    name: str,
    documents: Iterator[tuple[np.int64, Identified]],
    vectors: Vectors,
    first: int,
) -> None:
    """Upsert the documents of the rows from number ``first`` on that are not deleted."""
    batch: list[dict[str, Any]] = []
    rows: list[int] = []

    def write() -> None:
        taken = vectors.take(np.array(rows, dtype=np.int64))
        for entity, vector in zip(batch, taken, strict=True):
            entity[_VECTOR] = vector
        client.upsert(name, batch)
        batch.clear()
        rows.clear()

    for row, (key, document) in enumerate(documents):
        if row < first or (vectors.alive is not None and not vectors.alive[row]):
            continue
        metadata = {k: v for k, v in json.loads(document.metadata).items() if v is not None}
        batch.append({"id": document.id, **metadata, _KEY: int(key)})
        rows.append(row)
        if len(batch) == _BATCH_ROWS:
            write()
    if batch:
        write()
