"""Training rows in shards on an object store, of which a bounded part is on the local disk."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import socket
import tempfile
import weakref
from bisect import bisect_right
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from simcse_kit.data.bad_rows import ReadReport
from simcse_kit.data.corpus import Corpus
from simcse_kit.data.corpus_cache import cache_folder, make_private
from simcse_kit.data.fetch_ahead import FetchAhead
from simcse_kit.data.read_options import ReadOptions
from simcse_kit.data.readers import Example, Kind, file_kind
from simcse_kit.data.remote import RemoteFile, remote_files
from simcse_kit.errors import ConfigError, DataError
from simcse_kit.utils.files import write_atomic
from simcse_kit.utils.progress import progress_bar

__all__ = ["WINDOW", "StreamedCorpus"]

logger = logging.getLogger(__name__)

WINDOW = 4
"""Number of shards among whose rows an epoch is shuffled."""

_HOST = re.sub(r"\W", "-", socket.gethostname())
_REMEDY = "set SIMCSE_CACHE to a folder of your own"
_FACTS = 2  # version of the stored facts


@dataclass(frozen=True)
class _Shard:
    """Facts about a shard, found by reading it once.

    Attributes:
        kind: What the rows hold.
        rows: Number of rows.
        negatives: Largest number of hard negatives in a row.
        bytes: Size of the rows on the local disk.
        fingerprint: Hex key made from the content and the reading options.
        skipped: Number of skipped rows by reason.
        first_skipped: Place of the first skipped row by reason.
    """

    kind: Kind
    rows: int
    negatives: int
    bytes: int
    fingerprint: str
    skipped: dict[str, int]
    first_skipped: dict[str, str]


class StreamedCorpus(Corpus):
    """Rows of remote files, which are fetched when a row of them is needed, or before.

    The first use reads every shard once, to count its rows; the numbers are kept in the cache. Of
    the shards that are on the disk, those that were used least recently make room for others.

    Args:
        addresses: Files and folders on file systems of fsspec, or local ones.
        options: Options of reading.
        limit: Most bytes on the local disk.

    Raises:
        DataError: A shard is missing or malformed, or the shards are of different kinds.
        ConfigError: ``limit`` is too small for the shards, or the cache cannot be written.

    Examples:
        >>> folder = Path(tempfile.mkdtemp())
        >>> for number in range(6):
        ...     text = f"Shard {number} begins.\\nShard {number} ends.\\n"
        ...     _ = Path(folder, f"{number}.txt").write_text(text, encoding="utf-8")
        >>> corpus = StreamedCorpus([str(folder)], ReadOptions(), limit=100_000)
        >>> len(corpus), corpus[11].texts
        (12, ('Shard 5 ends.',))
    """

    def __init__(self, addresses: Sequence[str], options: ReadOptions, limit: int):
        self._options = options
        self._limit = limit
        self._files = [file for address in addresses for file in remote_files(address)]
        parent = cache_folder(name="streams")
        make_private(parent, remedy=_REMEDY)
        _remove_abandoned(parent)
        folder = Path(tempfile.mkdtemp(prefix=f"{_HOST}.{os.getpid()}.", dir=parent))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._folder = folder
        self._open: OrderedDict[int, Corpus] = OrderedDict()
        self._shards: list[_Shard] = []
        self._ahead = FetchAhead(self._files, folder / "ahead", 0)
        self._shards = self._facts(parent)
        self._check_kinds()
        # Any shards can follow each other; one more is copied before its rows are written.
        needed = sum(sorted(shard.bytes for shard in self._shards)[-WINDOW - 1 :])
        needed += max(file.size for file in self._files)
        if needed > limit:
            raise ConfigError(
                f"data.stream is {limit:,} bytes but {WINDOW + 1} shards need {needed:,}; give "
                f"{needed:,} or more, or write smaller shards"
            )
        self._ahead = FetchAhead(self._files, folder / "ahead", limit - needed)
        report = ReadReport(sum(self.shard_rows))
        for shard in self._shards:
            report.skipped = dict(Counter(report.skipped) + Counter(shard.skipped))
            report.first_skipped = shard.first_skipped | report.first_skipped
        if report.skipped:
            logger.warning("%d rows are used; skipped %s", report.rows, report.summary())
        together = ":".join(shard.fingerprint for shard in self._shards)
        super().__init__(
            folder,
            fingerprint=hashlib.sha256(together.encode()).hexdigest()[:40],
            kind=self._shards[0].kind,
            negatives=max(shard.negatives for shard in self._shards),
            report=report,
        )
        self._starts = [0, *accumulate(self.shard_rows)]

    @staticmethod
    def first_kind(addresses: Sequence[str], options: ReadOptions) -> Kind:
        """Return what the rows of the first shard hold.

        Raises:
            DataError: The shard cannot be read.
        """
        file = remote_files(addresses[0])[0]
        with tempfile.TemporaryDirectory() as folder:
            path = file.fetch(Path(folder))
            with _named(path, file):
                return file_kind(path, options)

    @property
    def shard_rows(self) -> list[int]:
        """Number of rows of each shard."""
        return [shard.rows for shard in self._shards]

    @property
    def sampled(self) -> range:
        """The rows of the first shards."""
        return range(sum(self.shard_rows[:WINDOW]))

    @property
    def local_bytes(self) -> int:
        """Number of bytes on the disk."""
        total = 0
        for path in self._folder.rglob("*"):
            with suppress(FileNotFoundError):  # a copy that has just got its name
                total += path.stat().st_size if path.is_file() else 0
        return total

    def expect(self, shards: Sequence[int]) -> None:
        """Fetch shards in the background that will be read next, as far as there is room.

        Args:
            shards: Their numbers from 0, the next one first.
        """
        self._ahead.expect([shard for shard in shards if shard not in self._open])

    def rows(self, indices: Sequence[int]) -> list[Example]:
        """Return the rows with the numbers ``indices``, in this order, after fetching their shards.

        Raises:
            IndexError: A number is out of range.
            DataError: A shard is missing, or has changed since training began.
        """
        found: dict[int, Example] = {}
        by_shard: dict[int, list[int]] = {}
        for index in indices:
            if not -len(self) <= index < len(self):
                raise IndexError(f"row {index} of a corpus of {len(self)} rows")
            row = index % len(self)
            by_shard.setdefault(bisect_right(self._starts, row) - 1, []).append(row)
        for shard, wanted in by_shard.items():
            start = self._starts[shard]
            examples = self._opened(shard).rows([row - start for row in wanted])
            found.update(zip(wanted, examples, strict=True))
        return [found[index % len(self)] for index in indices]

    def texts(self) -> Iterator[tuple[str, ...]]:
        """Iterate over the texts of all rows in order, shard by shard."""
        for shard in range(len(self._shards)):
            yield from self._opened(shard).texts()

    def labels(self) -> list[float]:
        """Return the distinct labels of labelled rows in ascending order, after reading all."""
        opened = map(self._opened, range(len(self._shards)))
        return sorted({label for corpus in opened for label in corpus.labels()})

    def _opened(self, number: int) -> Corpus:
        """Return the rows of a shard, after fetching it if it is not on the disk."""
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        known = self._shards[number] if self._shards else None
        if known is not None:
            file = self._files[number]
            while self._open and self.local_bytes + file.size + known.bytes > self._limit:
                self._close()
        corpus = self._built(number)
        if known is not None and corpus.fingerprint != known.fingerprint:
            raise DataError(
                "has changed since its rows were counted; put the former file back, or start the "
                "run again with --overwrite",
                file=self._files[number].address,
            )
        self._open[number] = corpus
        return corpus

    def _built(self, number: int) -> Corpus:
        folder = self._folder / str(number)
        folder.mkdir(exist_ok=True)
        file = self._ahead.take(number, folder)
        try:
            with _named(file, self._files[number]):
                return Corpus.build(file, self._options, cache_dir=folder, log_skipped=False)
        finally:
            file.unlink()

    def _close(self) -> None:
        """Remove the shard that was used least recently from the disk."""
        number, _ = self._open.popitem(last=False)
        shutil.rmtree(self._folder / str(number))

    def _facts(self, parent: Path) -> list[_Shard]:
        """Read every shard once, unless that was done before."""
        versions = [file.version for file in self._files]
        key = hashlib.sha256(
            json.dumps([_FACTS, versions, repr(self._options)]).encode()
        ).hexdigest()
        path = parent / f"{key[:40]}.json"
        if path.exists():
            return [_Shard(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
        shards = []
        with progress_bar(len(versions), desc="counting rows", unit=" shards", delay=2) as bar:
            for number, file in enumerate(self._files):
                corpus = self._opened(number)
                size = corpus.path.stat().st_size
                if file.size + size > self._limit:
                    raise ConfigError(
                        f"data.stream is {self._limit:,} bytes but {file.address} alone takes "
                        f"{file.size + size:,} on the disk; give more, or write smaller shards"
                    )
                skipped = corpus.report.skipped
                # The copy of the file, which they name, has been removed.
                places = {
                    reason: f"{file.address}:{place.rpartition(':')[2]}"
                    for reason, place in corpus.report.first_skipped.items()
                }
                facts = corpus.negatives, size, corpus.fingerprint, skipped, places
                shards.append(_Shard(corpus.kind, len(corpus), *facts))
                self._close()
                bar.update()
        write_atomic(path, json.dumps([asdict(shard) for shard in shards]), remedy=_REMEDY)
        return shards

    def _check_kinds(self) -> None:
        first = self._shards[0].kind
        for file, shard in zip(self._files, self._shards, strict=True):
            if shard.kind != first:
                raise DataError(
                    f"holds {shard.kind} but {self._files[0].address} holds {first}; train on "
                    "files of one kind at a time",
                    file=file.address,
                )

    def __getstate__(self) -> dict[str, Any]:
        raise TypeError("a streamed corpus cannot be sent to another process")


@contextmanager
def _named(copy: Path, file: RemoteFile) -> Iterator[None]:
    """Name the address in errors about a copy, which vanishes."""
    try:
        yield
    except DataError as error:
        raise DataError(str(error).replace(str(copy), file.address)) from None


def _remove_abandoned(parent: Path) -> None:
    """Remove the folders of processes of this machine that were killed."""
    for folder in parent.glob(f"{_HOST}.*"):
        process = folder.name.split(".")[1]
        if process.isdigit() and not _exists(int(process)):
            shutil.rmtree(folder, ignore_errors=True)


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # a process of another user
        return True
    return True
