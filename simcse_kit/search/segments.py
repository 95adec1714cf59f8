"""Writing of segments: texts, and vectors in int8."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcse_kit.bulk.formats import FORMATS
from simcse_kit.metrics.vector_precision import quantize_vectors, vector_dtype
from simcse_kit.search.documents import Identified
from simcse_kit.search.manifest import FileRecord, Manifest
from simcse_kit.search.texts import TEXTS, write_texts
from simcse_kit.search.vectors import CODES, RANGES, Vectors
from simcse_kit.utils.files import remove_leftovers, replacement

__all__ = ["REMEDY", "VECTORS", "new_segment", "save_array", "write_codes"]

VECTORS = "vectors"
"""Folder of the vectors in a segment."""

REMEDY = "free disk space, then run the same command again"
"""Remedy for a full disk."""


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


def write_codes(folder: Path, manifest: Manifest) -> None:
    """Write the int8 vectors of the segments that lack them.

    Args:
        folder: Folder of the index.
        manifest: The state.

    Raises:
        ConfigError: A file cannot be written.
    """
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
        save_array(place / RANGES, ranges)


def save_array(target: Path, array: NDArray[Any]) -> None:
    """Write a .npy file atomically.

    Raises:
        ConfigError: The file cannot be written.
    """
    with replacement(target, remedy=REMEDY) as path, path.open("wb") as file:
        np.save(file, array)
