"""Changes of an index on disk: new segments, deletion, merging and publication.

Segments never change. A change writes new files, then replaces the manifest atomically, then
removes the files that neither the new state nor the one before it needs. A process that is killed
leaves the old state or the new one, and readers of the old state keep their files.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcse_kit.bulk.formats import FORMATS
from simcse_kit.errors import ConfigError
from simcse_kit.metrics.vector_precision import quantize_vectors, vector_dtype
from simcse_kit.search.documents import Identified
from simcse_kit.search.manifest import MANIFEST, FileRecord, Manifest, Segment, read_manifest
from simcse_kit.search.settings import ENGINES, PRECISIONS
from simcse_kit.search.texts import TEXTS, Texts, write_texts
from simcse_kit.search.vectors import CODES, RANGES, Vectors
from simcse_kit.utils.files import remove_leftovers, replacement, sync_folder
from simcse_kit.utils.locks import output_locked

__all__ = [
    "VECTORS",
    "check_place",
    "copy_state",
    "new_segment",
    "publish",
    "remove_rows",
    "writing",
]

VECTORS = "vectors"
"""Folder of the vectors in a segment."""

REMEDY = "free disk space, then run the same command again"
_OURS = ("segment-", "engine-", "deleted-")


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Lock an index against other writers inside the block.

    Raises:
        ConfigError: Another process changes the index, or the folder cannot be used.
    """
    busy = f"is changing the index {folder}; wait until it has finished"
    try:
        with output_locked(folder, "index", busy=busy):
            yield
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"{folder} cannot be used: {reason}; give another folder") from None


def check_place(folder: Path, *, overwrite: bool) -> Manifest | None:
    """Check that an index can be built in a folder, and create the folder.

    Returns:
        The manifest of an index that will be replaced; None if there is none or it is damaged.

    Raises:
        ConfigError: The folder holds an index or other files, or cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "it is a file" if folder.exists() else error.strerror or error
        raise ConfigError(
            f"--output {folder} cannot be used: {reason}; give another folder"
        ) from None
    if (folder / MANIFEST).exists():
        if not overwrite:
            raise ConfigError(
                f"--output {folder} holds an index; add to it with: simcse index add DIR FILES..., "
                "or replace it with --overwrite"
            )
        with suppress(Exception):
            return read_manifest(folder)
        return None
    others = [p.name for p in folder.iterdir() if p.name[0] != "." and not p.name.startswith(_OURS)]
    if others:
        raise ConfigError(
            f"--output {folder} holds other files ({min(others)}); give another folder"
        )
    return None


def new_segment(folder: Path, documents: Iterable[Identified], key: object) -> tuple[Path, int]:
    """Write the texts of a new segment.

    The name of the segment depends on its texts, so that the same change after an interruption
    finds the vectors that exist already.

    Args:
        folder: Folder of the index.
        documents: The documents.
        key: Everything else that the vectors depend on, as JSON values.

    Returns:
        Folder of the segment and number of rows.
    """
    remove_leftovers(folder)
    # Hidden, and removed by the next writer if this process is killed.
    work = folder / ".new"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        rows = write_texts(work / TEXTS, documents, remedy=REMEDY)
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode())
        digest.update(FileRecord.of(work / TEXTS).sha256.encode())
        place = folder / f"segment-{digest.hexdigest()[:16]}"
        place.mkdir(exist_ok=True)
        (work / TEXTS).replace(place / TEXTS)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return place, rows


def publish(folder: Path, before: Manifest | None, after: Manifest) -> Manifest:
    """Merge small segments, build the engine, and make a state the current one.

    Args:
        folder: Folder of the index.
        before: The current state; None if there is none.
        after: The new state, whose engine and file records are filled in here.

    Returns:
        The new state.

    Raises:
        ConfigError: A file cannot be written.
    """
    after = _merged(folder, after)
    if after.precision == "int8":
        _write_codes(folder, after)
    after = _with_engine(folder, after)
    known = before.files if before else {}
    after = replace(after, files=_records(folder, after, known))
    after.write(folder)
    _remove_unused(folder, {*after.files, *known})
    return after


def _records(
    folder: Path, manifest: Manifest, known: dict[str, FileRecord]
) -> dict[str, FileRecord]:
    """Describe all files of a state; flush those that are new."""
    names = [] if manifest.deleted is None else [manifest.deleted]
    for segment in manifest.segments:
        names += [f"{segment.name}/{TEXTS}", *segment.vectors]
        if manifest.precision == "int8":
            names += [f"{segment.name}/{CODES}", f"{segment.name}/{RANGES}"]
    if manifest.engine.folder is not None:
        place = folder / manifest.engine.folder
        names += [p.relative_to(folder).as_posix() for p in place.rglob("*") if p.is_file()]
    for top in {name.partition("/")[0] for name in names if name not in known and "/" in name}:
        sync_folder(folder / top)
    return {name: known.get(name) or FileRecord.of(folder / name) for name in sorted(names)}


def _remove_unused(folder: Path, kept: set[str]) -> None:
    """Remove what killed processes and old states left; files may be open in other processes."""
    remove_leftovers(folder)
    tops = {name.partition("/")[0] for name in kept}
    for entry in folder.iterdir():
        if entry.name.startswith(_OURS) and entry.name not in tops:
            with suppress(OSError):
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    for name in tops:
        for path in (folder / name).rglob("*"):
            if path.is_file() and path.relative_to(folder).as_posix() not in kept:
                with suppress(OSError):
                    path.unlink()


# ---- int8


def _write_codes(folder: Path, manifest: Manifest) -> None:
    """Write the int8 vectors of segments that lack them."""
    for segment in manifest.segments:
        place = folder / segment.name
        if (place / RANGES).exists():  # written last
            continue
        only = replace(manifest, segments=(segment,), deleted=None, precision="fp32")
        vectors = Vectors(folder, only)
        # Ranges of all vectors of the segment, so that no number is outside.
        ends = [(block.min(axis=0), block.max(axis=0)) for _, block, _ in vectors.blocks()]
        ranges = np.stack([np.min([e[0] for e in ends], 0), np.max([e[1] for e in ends], 0)])
        with replacement(place / CODES, remedy=REMEDY) as path:
            row = vector_dtype("int8", manifest.dim)
            with FORMATS["npy"].writer(path, segment.rows, row) as write:
                for _, block, _ in vectors.blocks():
                    write((), quantize_vectors(block, "int8", ranges))
        _save(place / RANGES, ranges)


def _save(target: Path, array: NDArray[Any]) -> None:
    with replacement(target, remedy=REMEDY) as path, path.open("wb") as file:
        np.save(file, array)


# ---- deletion and merging


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
        _save(folder / name, rows)
    return replace(manifest, deleted=name, count=manifest.rows - len(rows))


def _merged(folder: Path, manifest: Manifest) -> Manifest:
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


def copy_state(folder: Path, target: Path, manifest: Manifest) -> None:
    """Copy the files of a state to an empty folder.

    Raises:
        ConfigError: A file cannot be written.
    """
    for name in manifest.files:
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacement(path, remedy=REMEDY) as temporary:
            shutil.copyfile(folder / name, temporary)
    manifest.write(target)


# ---- the engine


def _with_engine(folder: Path, manifest: Manifest) -> Manifest:
    """Build the engine for a state."""
    place = folder / f"engine-{manifest.generation:06d}"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    kind = ENGINES.resolve(manifest.engine.name)
    settings = kind.build(Vectors(folder, manifest), place)
    name: str | None = place.name
    if not any(place.iterdir()):
        place.rmdir()
        name = None
    engine = replace(manifest.engine, settings=settings, folder=name)
    return replace(manifest, engine=engine)
