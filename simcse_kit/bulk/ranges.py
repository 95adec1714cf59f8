"""The ranges of int8 vectors: computed once for a job, and kept next to its vectors."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simcse_kit.bulk.finalize import CONTINUE
from simcse_kit.bulk.output import OutputSpec
from simcse_kit.bulk.shard_log import RANGES
from simcse_kit.errors import ConfigError, DataError
from simcse_kit.metrics.vector_precision import needs_ranges, vector_ranges
from simcse_kit.utils.files import write_atomic
from simcse_kit.utils.locks import locked

__all__ = ["ranges_digest", "ranges_of_job", "read_ranges"]


def read_ranges(path: Path, dim: int) -> NDArray[np.float32]:
    """Read the ranges of ``dim`` dimensions.

    Raises:
        ConfigError: The file cannot be read, or holds something else.
    """
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or "it is not a .npy file"
        raise ConfigError(f"the ranges in {path} cannot be read: {reason}") from None
    if found.shape != (2, dim) or found.dtype != np.float32 or not np.isfinite(found).all():
        raise ConfigError(
            f"{path} holds {found.dtype} numbers of shape {found.shape}, not the ranges of {dim} "
            f"dimensions, which are finite float32 of shape (2, {dim}); give the ranges.npy of "
            "another job with this encoder"
        )
    return np.asarray(found)


def ranges_digest(path: Path) -> str:
    """Compute the SHA-256 of a file of ranges."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def ranges_of_job(
    output: OutputSpec, dim: int, sample: Callable[[], NDArray[np.float32]]
) -> NDArray[np.float32] | None:
    """Return the ranges of a job; the first process computes and writes them.

    Args:
        output: Destination of the vectors.
        dim: Number of dimensions.
        sample: Function that computes vectors ``(n, dim)`` of sentences of the job.

    Returns:
        ``(2, dim)`` float32; None if the vectors need no ranges.

    Raises:
        ConfigError: The ranges cannot be read or written.
        DataError: The job has fewer than two sentences.
    """
    if not needs_ranges(output.precision):
        return None
    path = output.folder / RANGES
    with locked(output.folder / ".lock-ranges", busy="computes the ranges", wait=True):
        if not path.exists():
            if output.ranges is not None:
                ranges = read_ranges(output.ranges, dim)
            else:
                try:
                    ranges = vector_ranges(sample())
                except DataError:
                    raise DataError(
                        f"--output-precision {output.precision} takes its ranges from the text, "
                        "which has fewer than two sentences; give --ranges of another job"
                    ) from None
            content = io.BytesIO()
            np.save(content, ranges)
            write_atomic(path, content.getvalue(), remedy=CONTINUE)
        return read_ranges(path, dim)
