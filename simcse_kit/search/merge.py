"""Deletion of rows, and merging of segments."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simcse_kit.bulk.formats import FORMATS
from simcse_kit.metrics.vector_precision import vector_dtype
from simcse_kit.search.manifest import Manifest, Segment
from simcse_kit.search.segments import REMEDY, VECTORS, new_segment, save_array
from simcse_kit.search.settings import PRECISIONS
from simcse_kit.search.state import State
from simcse_kit.search.texts import TEXTS, Texts
from simcse_kit.search.vectors import Vectors
from simcse_kit.utils.files import replacement

__all__ = ["merged", "remove_more", "remove_replaced", "remove_rows"]


def remove_rows(folder: Path, manifest: Manifest, rows: NDArray[np.int64]) -> Manifest:
    """Write the numbers of deleted rows.

    Args:
        folder: Folder of the index.
        manifest: The new state, with the generation that it will have.
        rows: Numbers of all deleted rows in ascending order.

    Returns:
        The new state with the deleted rows.
    """
    name = f"deleted-{manifest.generation:06d}.npy" if len(rows) else None
    if name is not None:
        save_array(folder / name, rows)
    return replace(manifest, deleted=name, count=manifest.rows - len(rows))


def remove_more(folder: Path, state: State, manifest: Manifest, rows: Iterable[int]) -> Manifest:
    """Delete rows of a state in addition to those that it has deleted already.

    Args:
        folder: Folder of the index.
        state: The state before the change.
        manifest: The new state, with the generation that it will have.
        rows: Numbers of the rows.

    Returns:
        The new state with the deleted rows.
    """
    numbers = np.array(sorted({*state.deleted, *rows}), dtype=np.int64)
    return remove_rows(folder, manifest, numbers)


def remove_replaced(folder: Path, state: State, manifest: Manifest) -> Manifest:
    """Delete the rows whose ids the last segment of a new state has, too.

    Args:
        folder: Folder of the index.
        state: The state before the change.
        manifest: The new state.

    Returns:
        The new state with the deleted rows.
    """
    ids = Texts([folder / manifest.segments[-1].name / TEXTS]).ids()
    return remove_more(folder, state, manifest, state.rows_of(ids).values())


def merged(folder: Path, manifest: Manifest) -> Manifest:
    """Merge the last segments while each has at most as many rows as those after it.

    Sizes then at least double from the last segment to the first, so there are few segments and
    each row is copied few times. If more than half of all rows are deleted, all are merged.
    """
    alive = Vectors(folder, replace(manifest, precision="fp32")).alive
    sizes = [segment.rows for segment in manifest.segments]
    first, total = len(sizes), 0
    while first and (first == len(sizes) or sizes[first - 1] <= total):
        first -= 1
        total += sizes[first]
    if manifest.count * 2 < manifest.rows:
        first = 0
    elif len(sizes) - first < 2:
        return manifest
    start = sum(sizes[:first])
    gone = np.empty(0, np.int64) if alive is None else np.flatnonzero(~alive)
    segments = manifest.segments[:first]
    if start < manifest.rows and np.count_nonzero(gone >= start) < manifest.rows - start:
        segments = (*segments, _merge(folder, manifest, first, alive))
    return remove_rows(folder, replace(manifest, segments=segments), gone[gone < start])


def _merge(
    folder: Path, manifest: Manifest, first: int, alive: NDArray[np.bool_] | None
) -> Segment:
    """Copy the rows of the segments from number ``first`` on that are not deleted."""
    merged = replace(manifest, segments=manifest.segments[first:], deleted=None, precision="fp32")
    start = manifest.rows - merged.rows
    counted = np.ones(merged.rows, np.bool_) if alive is None else alive[start:]
    texts = Texts(folder / segment.name / TEXTS for segment in merged.segments)
    chosen = (d for d, kept in zip(texts.documents(), counted, strict=True) if kept)
    place, rows = new_segment(folder, chosen, ["merged", manifest.generation])
    shutil.rmtree(place / VECTORS, ignore_errors=True)
    (place / VECTORS).mkdir()
    precision = PRECISIONS[manifest.precision]
    names = []
    for number, (at, block, _) in enumerate(Vectors(folder, merged).blocks()):
        part = block[counted[at : at + len(block)]]
        if not len(part):
            continue
        path = place / VECTORS / f"part-{number:06d}.npy"
        row = vector_dtype(precision, manifest.dim)  # type: ignore[arg-type]
        with (
            replacement(path, remedy=REMEDY) as temporary,
            FORMATS["npy"].writer(temporary, len(part), row) as write,
        ):
            write((), part)
        names.append(path.relative_to(folder).as_posix())
    return Segment(place.name, rows, tuple(names))
