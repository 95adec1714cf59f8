"""Training rows on disk, memory-mapped, so that memory does not limit their number."""

from __future__ import annotations

import logging
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from simcse_kit.data.arrow import RowWriter, count_rows
from simcse_kit.data.bad_rows import ReadReport
from simcse_kit.data.corpus_cache import (
    CorpusManifest,
    cache_folder,
    cache_key,
    check_private,
    is_own_file,
    make_private,
)
from simcse_kit.data.find import find_files
from simcse_kit.data.read_options import DEFAULTS, ReadOptions
from simcse_kit.data.readers import Example, Kind, file_kind, read_texts
from simcse_kit.data.records import reading_progress
from simcse_kit.errors import DataError
from simcse_kit.utils.files import checksum_of, remove_leftovers, replacement, write_atomic

if TYPE_CHECKING:
    import datasets

__all__ = ["Corpus"]

logger = logging.getLogger(__name__)

_REMEDY = "set SIMCSE_CACHE to a folder of your own"
# Checksum, kind and number of rows of the files whose offsets were all found to be valid.
_VALID: set[tuple[str, Kind, int]] = set()


class Corpus(Sequence[Example]):
    """Memory-mapped training rows, made with :meth:`build`.

    A corpus can be pickled (the rows stay on disk), so data loader workers may hold it.

    Args:
        path: The Arrow stream file.
        fingerprint: Hex key made from the content of the source files and the reading options.
        kind: What the rows hold.
        negatives: Largest number of hard negatives, or of following sentences, in a row; else 0.
        report: Counts of good and skipped rows.
    """

    def __init__(
        self, path: Path, *, fingerprint: str, kind: Kind, negatives: int, report: ReadReport
    ):
        self.path = path
        self.fingerprint = fingerprint
        self.kind = kind
        self.negatives = negatives
        self.report = report

    @classmethod
    def build(
        cls,
        paths: str | Path | Sequence[str | Path],
        options: ReadOptions = DEFAULTS,
        *,
        cache_dir: str | Path | None = None,
        count_files: bool = False,
        log_skipped: bool = True,
    ) -> Corpus:
        """Read files into a corpus, or find it in the cache.

        Args:
            paths: Files or folders; see :func:`~simcse_kit.data.find.find_files`.
            options: Options of reading.
            cache_dir: Parent of the cache folder ``corpora``; by default $SIMCSE_CACHE or
                ~/.cache/simcse_kit.
            count_files: Whether ``report.file_rows`` is needed, which the cache of earlier versions
                does not have.
            log_skipped: Whether skipped rows are counted in a warning.

        Raises:
            DataError: A file is missing, empty or malformed; the files are of different kinds; no
                row is left.
            ConfigError: The cache cannot be written, or other users can write to it.

        Examples:
            >>> from tempfile import TemporaryDirectory
            >>> with TemporaryDirectory() as folder:
            ...     path = Path(folder, "sentences.txt")
            ...     _ = path.write_text("A cat sat.\\nIt rains.\\n", encoding="utf-8")
            ...     corpus = Corpus.build(path, cache_dir=folder)
            ...     corpus.kind, len(corpus), corpus[1].texts
            ('texts', 2, ('It rains.',))
        """
        files = find_files(paths)
        folder = cache_folder(cache_dir)
        check_private(folder, remedy=_REMEDY)
        kind = _common_kind(files, options)
        states = [_state(file) for file in files]
        key = cache_key(files, options)
        arrow = folder / f"{key}.arrow"
        manifest = _find(arrow)
        if manifest is None or (count_files and not manifest.file_rows):
            manifest = _write(arrow, files, kind, states, options)
        report = manifest.report(files)
        if report.skipped and log_skipped:
            logger.warning("%d rows are used; skipped %s", report.rows, report.summary())
        return cls(
            arrow, fingerprint=key, kind=manifest.kind, negatives=manifest.negatives, report=report
        )

    @cached_property
    def dataset(self) -> datasets.Dataset:
        """Memory-mapped dataset with the columns of :func:`~simcse_kit.data.arrow.schema_of`."""
        from datasets import Dataset

        return Dataset.from_file(str(self.path))

    @property
    def sampled(self) -> range:
        """Rows from which samples are drawn: all, unless reading far ones is slow."""
        return range(len(self))

    def __len__(self) -> int:
        return self.report.rows

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...

    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        """Return row ``index`` (negative: from the end), or a list of rows for a slice."""
        if isinstance(index, slice):
            return self.rows(range(*index.indices(len(self))))
        return self.rows([index])[0]

    def texts(self) -> Iterator[tuple[str, ...]]:
        """Iterate over the texts of all rows in order, read in large pieces."""
        _, columns = self._chunks
        wanted = columns[:-1] if self.kind == "labelled" else columns
        for parts in zip(*wanted, strict=True):
            values = [part.to_pylist() for part in parts]
            if self.kind in ("triplets", "documents"):  # the last is a list
                for *single, more in zip(*values, strict=True):
                    yield (*single, *more)
            else:
                yield from zip(*values, strict=True)

    def labels(self) -> list[float]:
        """Return the distinct labels of labelled rows in ascending order; else an empty list."""
        if self.kind != "labelled":
            return []
        found: list[float] = self.dataset.data.column("label").unique().to_pylist()
        return sorted(found)

    def rows(self, indices: Sequence[int]) -> list[Example]:
        """Return the rows with the numbers ``indices``, in this order.

        Raises:
            IndexError: A number is out of range.
        """
        starts, columns = self._chunks
        size = len(self)
        found = []
        for index in indices:
            row = at = index + size if index < 0 else index
            if not 0 <= at < size:
                raise IndexError(f"row {index} of a corpus of {size} rows")
            chunk = bisect_right(starts, at) - 1
            at -= starts[chunk]
            texts = [column[chunk][at].as_py() for column in columns]
            label = texts.pop() if self.kind == "labelled" else None
            if isinstance(texts[-1], list):
                texts[-1:] = texts[-1]
            found.append(Example(tuple(texts), label, row))
        return found

    @cached_property
    def _chunks(self) -> tuple[list[int], list[list[Any]]]:
        """First row number of each record batch, and the arrays of each column."""
        # Split once: a gather over thousands of batches is slow, and reading a scalar is fast.
        table = self.dataset.data
        columns = [table.column(number).chunks for number in range(table.num_columns)]
        return [0, *accumulate(map(len, columns[0]))][:-1], columns

    def __getstate__(self) -> dict[str, Any]:
        # The receiving process opens its own memory maps.
        return {k: v for k, v in self.__dict__.items() if k not in ("dataset", "_chunks")}


def _common_kind(files: Sequence[Path], options: ReadOptions) -> Kind:
    kinds: dict[Kind, Path] = {}
    for file in files:
        kinds.setdefault(file_kind(file, options), file)
    if len(kinds) > 1:
        (kind, file), (other, other_file) = list(kinds.items())[:2]
        raise DataError(
            f"holds {other} but {file} holds {kind}; train on files of one kind at a time",
            file=other_file,
        )
    return next(iter(kinds))


def _state(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def _find(arrow: Path) -> CorpusManifest | None:
    """Find the manifest of an intact corpus; None if the corpus is missing or has changed."""
    path_of_manifest = arrow.with_suffix(".json")
    if not os.path.lexists(arrow) and not os.path.lexists(path_of_manifest):
        return None
    found = None
    for path in (path_of_manifest, arrow):
        if os.path.lexists(path) and not is_own_file(path):
            with suppress(OSError):
                path.unlink()
    if is_own_file(path_of_manifest) and is_own_file(arrow):
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            found = CorpusManifest.from_json(path_of_manifest.read_text(encoding="utf-8"))
    if found is None or not _is_intact(arrow, found):
        logger.warning("%s is not the corpus that was written there; building it again", arrow)
        return None
    return found


def _is_intact(arrow: Path, manifest: CorpusManifest) -> bool:
    """Check whether the file at ``arrow`` has the content that was written."""
    try:
        if arrow.stat().st_size != manifest.bytes or checksum_of(arrow) != manifest.checksum:
            return False
    except (OSError, ValueError):
        return False
    # Once per process, since it takes several times as long as the checksum.
    content = manifest.checksum, manifest.kind, manifest.rows
    if content not in _VALID:
        if count_rows(arrow, manifest.kind) != manifest.rows:
            return False
        _VALID.add(content)
    return True


def _write(
    arrow: Path,
    files: Sequence[Path],
    kind: Kind,
    states: Sequence[tuple[int, int]],
    options: ReadOptions,
) -> CorpusManifest:
    make_private(arrow.parent, remedy=_REMEDY)
    remove_leftovers(arrow.parent, at_work=True)
    with replacement(arrow, remedy=_REMEDY) as temporary:
        report, negatives = _read_into(temporary, files, kind, options)
        for file, state in zip(files, states, strict=True):
            if _state(file) != state:
                raise DataError("changed while it was read; try again", file=file)
        manifest = CorpusManifest.of(kind, negatives, temporary, report, files)
    write_atomic(arrow.with_suffix(".json"), manifest.to_json(), remedy=_REMEDY)
    return manifest


def _read_into(
    path: Path, files: Sequence[Path], kind: Kind, options: ReadOptions
) -> tuple[ReadReport, int]:
    """Write the rows of files to ``path``; give the report and the most negatives of a row."""
    report = ReadReport()
    writer = RowWriter(path, kind)
    try:
        with reading_progress(files) as on_bytes:
            for file in files:
                _, texts = read_texts(file, options, report=report, on_bytes=on_bytes)
                before = writer.rows
                writer.write(texts)
                report.file_rows.append(writer.rows - before)
    finally:
        writer.close()
    report.rows = writer.rows
    if not report.rows:
        places = ", ".join(map(str, files[:3])) + (", ..." if len(files) > 3 else "")
        raise DataError(f"no row is left of {places}; skipped {report.summary()}")
    return report, writer.negatives
