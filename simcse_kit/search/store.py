"""Changes of an index on disk: new segments, deletion, merging and publication.

Segments never change. A change writes new files, then replaces the manifest atomically, then
removes the files that neither the new state nor the one before it needs. A process that is killed
leaves the old state or the new one, and readers of the old state keep their files.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simcse_kit.errors import ConfigError, SimcseError
from simcse_kit.search.engine import Content, Previous
from simcse_kit.search.manifest import MANIFEST, EngineRecord, FileRecord, Manifest, read_manifest
from simcse_kit.search.merge import merged
from simcse_kit.search.segments import REMEDY, write_codes
from simcse_kit.search.settings import DATABASE, ENGINES
from simcse_kit.search.texts import TEXTS, Texts
from simcse_kit.search.vectors import CODES, RANGES, Vectors, open_array
from simcse_kit.utils.files import remove_leftovers, replacement, sync_folder, why_unusable
from simcse_kit.utils.locks import output_locked

__all__ = ["check_place", "copy_state", "publish", "writing"]

_OURS = ("segment-", "engine-", "deleted-")


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Create the folder of an index, and lock it against other writers inside the block.

    Raises:
        ConfigError: Another process changes the index, or the folder cannot be used.
    """
    busy = f"is changing the index {folder}; wait until it has finished"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with output_locked(folder, "index", busy=busy):
            yield
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"{folder} cannot be used: {reason}; give another folder") from None


def check_place(folder: Path, *, overwrite: bool) -> Manifest | None:
    """Check that an index can be built in a folder. Nothing is created.

    Returns:
        The manifest of an index that will be replaced; None if there is none or it is damaged.

    Raises:
        ConfigError: The folder holds an index or other files, or cannot be created or written.
    """
    try:
        reason = why_unusable(folder)
    except OSError as error:  # a name that is too long
        reason = error.strerror or str(error)
    if reason:
        raise ConfigError(f"--output {folder} cannot be used: {reason}; give another folder")
    if not folder.exists():
        return None
    if (folder / MANIFEST).exists():
        if not overwrite:
            raise ConfigError(
                f"--output {folder} holds an index; add to it with: simcse index add DIR FILES..., "
                "or replace it with --overwrite"
            )
        with suppress(Exception):
            return read_manifest(folder)
        return None
    ours = (*_OURS, DATABASE)
    others = [p.name for p in folder.iterdir() if p.name[0] != "." and not p.name.startswith(ours)]
    if others:
        raise ConfigError(
            f"--output {folder} holds other files ({min(others)}); give another folder"
        )
    return None


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
    deleted = _deleted_rows(folder, after)
    continued = before if before is not None and before.engine == after.engine else None
    after = merged(folder, after)
    # A merge drops the deleted rows of its segments, which are the last ones.
    dropped = deleted[len(_deleted_rows(folder, after)) :]
    if after.precision == "int8":
        write_codes(folder, after)
    after = _with_engine(folder, after, _previous(folder, continued, dropped))
    known = before.files if before else {}
    after = replace(after, files=_records(folder, after, known))
    after.write(folder)
    if before is not None and continued is None:
        # The state is complete; what could not be removed only takes space.
        with suppress(SimcseError):
            ENGINES.resolve(before.engine.name).discard(folder, before.engine.settings)
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


def copy_state(folder: Path, target: Path, manifest: Manifest) -> None:
    """Copy the files of a state to an empty folder.

    Data that the engine keeps elsewhere are written once more for the copy.

    Raises:
        ConfigError: A file cannot be written.
    """
    outside = ENGINES.resolve(manifest.engine.name).outside
    for name in manifest.files:
        if outside and name.startswith(f"{manifest.engine.folder}/"):
            continue
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacement(path, remedy=REMEDY) as temporary:
            shutil.copyfile(folder / name, temporary)
    if outside:
        chosen = {"uri": manifest.engine.settings["uri"]}
        engine = EngineRecord(manifest.engine.name, chosen)
        publish(target, None, replace(manifest, engine=engine, files={}))
    else:
        manifest.write(target)


def _deleted_rows(folder: Path, manifest: Manifest) -> NDArray[np.int64]:
    """Return the numbers of the deleted rows in ascending order."""
    if manifest.deleted is None:
        return np.empty(0, dtype=np.int64)
    return np.array(open_array(folder / manifest.deleted))


def _previous(folder: Path, before: Manifest | None, dropped: NDArray[np.int64]) -> Previous | None:
    """Describe the engine that a change continues.

    Args:
        folder: Folder of the index.
        before: The state before the change; None if the engine is a new one.
        dropped: Old numbers of the rows that a merge has dropped, in ascending order.
    """
    if before is None or before.engine.folder is None:
        return None
    rows = np.arange(before.rows, dtype=np.int64)
    rows -= np.searchsorted(dropped, rows)
    rows[dropped[dropped < before.rows]] = -1
    return Previous(folder / before.engine.folder, before.engine.settings, rows)


def _with_engine(folder: Path, manifest: Manifest, previous: Previous | None) -> Manifest:
    """Build the engine for a state."""
    place = folder / f"engine-{manifest.generation:06d}"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    kind = ENGINES.resolve(manifest.engine.name)
    texts = Texts(folder / segment.name / TEXTS for segment in manifest.segments)
    content = Content(Vectors(folder, manifest), texts, manifest.engine.settings, previous)
    settings = kind.build(content, place)
    name: str | None = place.name
    if not any(place.iterdir()):
        place.rmdir()
        name = None
    engine = replace(manifest.engine, settings=settings, folder=name)
    return replace(manifest, engine=engine)
