"""Vectors of teachers for a text, computed once into a cache that an interrupted run continues."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcse_kit.bulk.formats import FORMATS
from simcse_kit.bulk.shard_log import Shard, ShardLog, text_checksum
from simcse_kit.data.corpus_cache import cache_folder, make_private
from simcse_kit.errors import DataError, ModelError
from simcse_kit.training.teachers import Teacher, TextShard
from simcse_kit.utils.distributed import Processes
from simcse_kit.utils.files import remove_leftovers, replacement, sha256_of
from simcse_kit.utils.locks import locked

__all__ = ["SHARD_ROWS", "RowText", "TeacherCache", "TeacherVectors"]

logger = logging.getLogger(__name__)

SHARD_ROWS = 8192
"""Rows of a shard, which is the most that an interrupted run computes again."""

_VERSION = 1
_REMEDY = "set SIMCSE_CACHE to a folder of your own"


@dataclass(frozen=True)
class RowText:
    """The sentences that a teacher encodes.

    Attributes:
        fingerprint: key made from the sentences.
        rows: number of sentences.
        read: function that iterates over them.
    """

    fingerprint: str
    rows: int
    read: Callable[[], Iterable[str]]

    def shards(self) -> Iterator[TextShard]:
        """Read the sentences shard by shard."""
        texts = iter(self.read())
        for number in count():
            part = list(islice(texts, SHARD_ROWS))
            if not part:
                return
            yield TextShard(number, part)


class TeacherVectors:
    """Memory-mapped vectors of length 1; a pickled copy opens the files again.

    Args:
        files: files of the shards, in order; all but the last have equally many rows.
    """

    def __init__(self, files: Sequence[Path]):
        self._files = files

    @cached_property
    def _shards(self) -> list[NDArray[np.float32]]:
        return [np.load(file, mmap_mode="r") for file in self._files]

    @property
    def dim(self) -> int:
        """Number of dimensions."""
        return int(self._shards[0].shape[1])

    def shards(self) -> Iterator[NDArray[np.float32]]:
        """Iterate over the (n, d) vectors of all shards in order."""
        yield from self._shards

    def __call__(self, rows: Sequence[int]) -> NDArray[np.float32]:
        """Read the (n, d) vectors of n rows by their numbers."""
        numbers, places = np.divmod(np.asarray(rows, dtype=np.int64), SHARD_ROWS)
        found = np.empty((len(numbers), self.dim), dtype=np.float32)
        for number in np.unique(numbers):
            there = numbers == number
            found[there] = self._shards[number][places[there]]
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {"_files": self._files}


class TeacherCache:
    """The vectors of a teacher for a text, on disk.

    The folder is named by the text and by the files of the teacher. Each finished shard is logged
    with the checksums of its sentences and of its file, which are compared at every use.

    Args:
        teacher: the teacher.
        text: the sentences.
        processes: processes that share the work; each computes every n-th shard.
    """

    def __init__(self, teacher: Teacher, text: RowText, processes: Processes):
        parts = [_VERSION, text.fingerprint, teacher.identity]
        self.key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:40]
        self.folder = cache_folder(name="teachers") / self.key
        self._teacher, self._text, self._processes = teacher, text, processes
        self._log = ShardLog(self.folder, (processes.rank + 1, processes.size))

    @cached_property
    def dim(self) -> int:
        """Number of dimensions: of a finished shard, else of the opened teacher."""
        for shard in self._log.finished().values():
            return TeacherVectors([self.folder / shard.file]).dim
        return self._teacher.probe()

    def fill(self) -> TeacherVectors:
        """Compute the missing vectors, and open all of them.

        Raises:
            DataError: the folder holds the vectors of another text.
            ConfigError: the folder cannot be written.
            ModelError: the teacher cannot be opened, or gives no vectors.
        """
        dim = self.dim
        with ExitStack() as held:
            self._processes.from_first(lambda: self._begin(dim, held))
            finished = self._log.finished()
            rank, size = self._processes.rank, self._processes.size
            starts = range(0, self._text.rows, SHARD_ROWS)[rank::size]
            missing = (start for start in starts if start // SHARD_ROWS not in finished)
            left = sum(min(SHARD_ROWS, self._text.rows - start) for start in missing)
            stream = self._teacher.vectors(self._missing(finished), left)
            for shard, first in stream:
                self._write(shard, chain([first], (vectors for _, vectors in stream)))
            self._processes.barrier()
        shards = self._log.finished().values()
        return TeacherVectors([self.folder / shard.file for shard in shards])

    def _begin(self, dim: int, held: ExitStack) -> None:
        make_private(self.folder.parent, remedy=_REMEDY)
        lock = self.folder.with_suffix(".lock")
        # Another run with the same teacher and text computes the same vectors.
        held.enter_context(locked(lock, busy="computes the vectors of a teacher", wait=True))
        job = {
            "version": _VERSION,
            "teacher": self._teacher.identity,
            "text": self._text.fingerprint,
            "rows": self._text.rows,
            "dim": dim,
        }
        self._log.begin(job, remedy=f"remove {self.folder}, and the vectors are computed again")
        remove_leftovers(self.folder)

    def _missing(self, finished: dict[int, Shard]) -> Iterator[TextShard]:
        """Check the finished shards, and yield those that this process has to compute."""
        for part in self._text.shards():
            known = finished.get(part.number)
            if known is not None and known.text != text_checksum(part.texts):
                first = part.number * SHARD_ROWS
                raise DataError(
                    f"the teacher cache {self.folder} holds the vectors of another text: rows "
                    f"{first + 1:,} to {first + len(part.texts):,} differ; remove this folder, and "
                    "the same command computes them again"
                )
            if part.number % self._processes.size != self._processes.rank:
                continue
            if known is not None and not self._log.is_intact(known):
                logger.warning("%s has changed; computing it again", self.folder / known.file)
                known = None
            if known is None:
                yield part

    def _write(self, shard: TextShard, vectors: Iterator[NDArray[np.float32]]) -> None:
        name, rows = f"part-{shard.number:06d}.npy", len(shard.texts)
        with replacement(self.folder / name, remedy=f"free disk space, or {_REMEDY}") as path:
            with FORMATS["npy"].writer(path, rows, np.dtype(("<f4", (self.dim,)))) as write:
                row = 0
                while row < rows:
                    part = next(vectors)
                    if not np.isfinite(part).all():
                        raise ModelError(
                            f"teacher {self._teacher.name} gives vectors with NaN or infinity; "
                            "check its weights, or name another teacher"
                        )
                    write(shard.texts[row : row + len(part)], part)
                    row += len(part)
            size, digest = path.stat().st_size, sha256_of(path)
        checksum = text_checksum(shard.texts)
        self._log.add(Shard(shard.number, name, rows, size, checksum, digest))
