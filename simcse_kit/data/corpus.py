"""A training corpus: rows on disk, memory-mapped, so that its size is not bounded by memory."""

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
from simcse_kit.data.columns import check_columns
from simcse_kit.data.corpus_cache import CorpusRecord, cache_folder, fingerprint
from simcse_kit.data.private_folders import check_private, is_own_file, make_private
from simcse_kit.data.readers import (
    MAX_LINE_BYTES,
    Example,
    Kind,
    OnBadRow,
    ReadReport,
    file_kind,
    find_files,
    read_texts,
)
from simcse_kit.errors import DataError
from simcse_kit.utils.checksums import checksum_of
from simcse_kit.utils.files import remove_leftovers, replacement, write_whole
from simcse_kit.utils.progress import progress_bar

if TYPE_CHECKING:
    import datasets

__all__ = ["Corpus"]

logger = logging.getLogger(__name__)

_REMEDY = "set SIMCSE_CACHE to a folder of your own"
# Checksum, kind and number of rows of the files of which every offset was found to be valid.
_VALID: set[tuple[str, Kind, int]] = set()


class Corpus(Sequence[Example]):
    """Training rows, memory-mapped; made with :meth:`build`.

    It can be pickled (the rows stay on disk), so data loader workers may hold it.

    Args:
        path: the Arrow stream file.
        fingerprint: hex key made from the content of the source files and the reading settings.
        kind: what the rows are.
        negatives: most hard negatives of any row, or next sentences of documents; else 0.
        report: what reading met.
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
        *,
        columns: Sequence[str] | None = None,
        on_bad_row: OnBadRow = "error",
        cache_dir: str | Path | None = None,
        max_line_bytes: int = MAX_LINE_BYTES,
        label: str | None = None,
        documents: int = 0,
    ) -> Corpus:
        """Read files into a corpus, or find it in the cache.

        Args:
            paths: files or folders; see :func:`~simcse_kit.data.readers.find_files`.
            columns: anchor, positive and hard negative columns by name or by position; see
                :func:`~simcse_kit.data.readers.read_examples`.
            on_bad_row: raise at the first bad row, or skip bad rows and count them in ``report``.
            cache_dir: where ``corpora/`` is kept; $SIMCSE_CACHE or ~/.cache/simcse_kit by default.
            max_line_bytes: the longest line accepted.
            label: column of the label, by name or position; rows are then two texts and a label.
            documents: next sentences of each sentence; files are then documents.

        Raises:
            DataError: a file is missing, empty or malformed; the files are of different kinds; no
                row is left.
            ConfigError: an argument is wrong, the cache cannot be written, or other users can
                write to it.
        """
        wanted = check_columns(columns)
        files = find_files(paths)
        folder = cache_folder(cache_dir)
        check_private(folder, remedy=_REMEDY)
        settings = {
            "columns": wanted,
            "on_bad_row": on_bad_row,
            "max_line_bytes": max_line_bytes,
            "label": label,
            "documents": documents,
        }
        kind = _common_kind(files, settings)
        states = [_state(file) for file in files]
        key = fingerprint(files, settings)
        arrow = folder / f"{key}.arrow"
        record = _find(arrow)
        if record is None:
            record = _write(arrow, files, kind, states, settings)
        report = record.report(files)
        if report.skipped:
            logger.warning("%d rows are used; skipped %s", report.rows, report.summary())
        return cls(
            arrow, fingerprint=key, kind=record.kind, negatives=record.negatives, report=report
        )

    @cached_property
    def dataset(self) -> datasets.Dataset:
        """The rows as a memory-mapped dataset, with the columns of
        :func:`~simcse_kit.data.arrow.schema_of`."""
        from datasets import Dataset

        return Dataset.from_file(str(self.path))

    def __len__(self) -> int:
        return self.report.rows

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...

    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        """Row ``index`` (negative: from the end), or a list of rows for a slice."""
        if isinstance(index, slice):
            return self.rows(range(*index.indices(len(self))))
        return self.rows([index])[0]

    def texts(self) -> Iterator[tuple[str, ...]]:
        """The texts of every row in order, read in large pieces."""
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
        """The different labels of labelled rows, ascending; else nothing."""
        if self.kind != "labelled":
            return []
        found: list[float] = self.dataset.data.column("label").unique().to_pylist()
        return sorted(found)

    def rows(self, indices: Sequence[int]) -> list[Example]:
        """The rows with these numbers, in this order.

        Raises:
            IndexError: a number is out of range.
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
        """First row number of every record batch, and the arrays of every column."""
        # Taken apart once: a gather over thousands of batches is slow, a scalar read is not.
        table = self.dataset.data
        columns = [table.column(number).chunks for number in range(table.num_columns)]
        return [0, *accumulate(map(len, columns[0]))][:-1], columns

    def __getstate__(self) -> dict[str, Any]:
        # Memory maps are opened again where the corpus arrives.
        return {k: v for k, v in self.__dict__.items() if k not in ("dataset", "_chunks")}


def _common_kind(files: Sequence[Path], settings: dict[str, Any]) -> Kind:
    kinds: dict[Kind, Path] = {}
    for file in files:
        kinds.setdefault(file_kind(file, **settings), file)
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


def _find(arrow: Path) -> CorpusRecord | None:
    """The record of a whole corpus at ``arrow``; None where it is missing or has changed."""
    manifest = arrow.with_suffix(".json")
    if not os.path.lexists(arrow) and not os.path.lexists(manifest):
        return None
    record = None
    for path in (manifest, arrow):
        if os.path.lexists(path) and not is_own_file(path):
            with suppress(OSError):
                path.unlink()
    if is_own_file(manifest) and is_own_file(arrow):
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            record = CorpusRecord.from_json(manifest.read_text(encoding="utf-8"))
    if record is None or not _is_whole(arrow, record):
        logger.warning("%s is not the corpus that was written there; it is built again", arrow)
        return None
    return record


def _is_whole(arrow: Path, record: CorpusRecord) -> bool:
    """Whether the file at ``arrow`` has the content that was written."""
    try:
        if arrow.stat().st_size != record.bytes or checksum_of(arrow) != record.checksum:
            return False
    except (OSError, ValueError):
        return False
    # Once in a process: it takes several times as long as the checksum.
    content = record.checksum, record.kind, record.rows
    if content not in _VALID:
        if count_rows(arrow, record.kind) != record.rows:
            return False
        _VALID.add(content)
    return True


def _write(
    arrow: Path,
    files: Sequence[Path],
    kind: Kind,
    states: Sequence[tuple[int, int]],
    settings: dict[str, Any],
) -> CorpusRecord:
    make_private(arrow.parent, remedy=_REMEDY)
    remove_leftovers(arrow.parent, at_work=True)
    with replacement(arrow, remedy=_REMEDY) as temporary:
        report, negatives = _read_into(temporary, files, kind, settings)
        for file, state in zip(files, states, strict=True):
            if _state(file) != state:
                raise DataError("changed while it was read; try again", file=file)
        record = CorpusRecord.of(kind, negatives, temporary, report, files)
    write_whole(arrow.with_suffix(".json"), record.to_json(), remedy=_REMEDY)
    return record


def _read_into(
    path: Path, files: Sequence[Path], kind: Kind, settings: dict[str, Any]
) -> tuple[ReadReport, int]:
    """Write the rows of ``files`` to ``path``; the report and the most negatives of any row."""
    report = ReadReport()
    total = sum(file.stat().st_size for file in files)
    writer = RowWriter(path, kind)
    try:
        with progress_bar(total, desc="reading", unit="B", unit_scale=True, delay=2) as bar:
            for file in files:
                _, texts = read_texts(file, report=report, on_bytes=bar.update, **settings)
                writer.write(texts)
    finally:
        writer.close()
    report.rows = writer.rows
    if not report.rows:
        places = ", ".join(map(str, files[:3])) + (", ..." if len(files) > 3 else "")
        raise DataError(f"no row is left of {places}; skipped {report.summary()}")
    return report, writer.negatives
