"""The settings that identify a job, so that only the same job continues it."""

from __future__ import annotations

from typing import Any

from simcse_kit.bulk.output import OutputSpec
from simcse_kit.bulk.ranges import ranges_digest, read_ranges
from simcse_kit.encoder.encode_options import EncodeOptions
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.folder.fingerprint import fingerprint

__all__ = ["job_settings"]

_VERSION = 1


def job_settings(
    encoder: SentenceEncoder, output: OutputSpec, options: EncodeOptions, *, chunk: int, dim: int
) -> dict[str, Any]:
    """Collect the settings of a job.

    Prompt and output precision are left out if they are the default ones, as in jobs of versions
    without these settings.

    Args:
        encoder: Encoder, which was loaded from a folder.
        output: Destination of the vectors.
        options: How sentences become vectors, with the text of the prompt.
        chunk: Maximum number of sentences held at a time.
        dim: Number of dimensions of the vectors.

    Raises:
        ConfigError: The file with the ranges cannot be read.
    """
    assert encoder.source is not None
    normalize = encoder.normalize if options.normalize is None else options.normalize
    job: dict[str, Any] = {
        "version": _VERSION,
        "model": fingerprint(encoder.source),
        "pooling": encoder.pooling,
        "dim": dim,
        "format": output.format,
        "shard_rows": output.shard_rows,
        "chunk": chunk,
        "batch_size": options.batch_size,
        "max_length": options.max_length,
        "normalize": bool(normalize),
        "precision": options.precision,
    }
    if options.prompt != encoder.prompt:
        job["prompt"] = options.prompt
    if output.precision != "float32":
        job["output_precision"] = output.precision
    if output.ranges is not None:
        read_ranges(output.ranges, dim)
        job["ranges"] = ranges_digest(output.ranges)
    return job
