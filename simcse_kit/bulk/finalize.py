"""The last step of a job: verify every shard, then join them or write a manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from simcse_kit.bulk.formats import FORMATS
from simcse_kit.bulk.job_lock import finalizing, others_at_work
from simcse_kit.bulk.output import OutputSpec
from simcse_kit.bulk.shard_log import JOB, MANIFEST, RANGES, Shard, ShardLog
from simcse_kit.errors import ConfigError
from simcse_kit.metrics.vector_precision import vector_dtype
from simcse_kit.utils.files import move, remove_leftovers, replacement, sha256_of, write_atomic

__all__ = ["CONTINUE", "finalize", "remove_files", "row_type"]

CONTINUE = "free disk space, then the same command continues the job"
"""Remedy for a full disk."""


def finalize(log: ShardLog, output: OutputSpec, count: int, rows: int) -> str | None:
    """Verify the shards of a job and join them if the output is one file.

    One process of the job does this at a time.

    Args:
        log: Log of the job.
        output: Destination of the vectors.
        count: Number of shards of the whole job.
        rows: Number of rows of the whole job.

    Returns:
        SHA-256 of the file, or of the manifest of a folder; None if shards are still missing.

    Raises:
        ConfigError: A shard or the file differs from what was written, or the file cannot be
            written.
    """
    with finalizing(output):
        finished = log.finished()
        shards = [finished[number] for number in range(count) if number in finished]
        if len(shards) < count:
            return None
        folder = output.folder
        for shard in shards:
            if not log.is_intact(shard):
                path = folder / shard.file
                path.unlink()
                raise ConfigError(
                    f"{path} is not as it was written, and was removed; check the disk, then run "
                    "the same command to compute it again"
                )
        counted = sum(shard.rows for shard in shards)
        if counted != rows:
            raise ConfigError(
                f"{folder} holds {counted:,} rows for {rows:,} sentences; start over with "
                "--overwrite"
            )
        remove_leftovers(folder, at_work=others_at_work(output))
        job = json.loads((folder / JOB).read_text(encoding="utf-8"))
        if not output.one_file:
            return _write_manifest(folder, job, shards, rows)
        digest = _join(output, [folder / shard.file for shard in shards], rows, row_type(job))
        if (folder / RANGES).exists():
            move(folder / RANGES, output.ranges_file, remedy=CONTINUE)
        remove_files(folder)
        return digest


def row_type(job: Mapping[str, Any]) -> np.dtype[Any]:
    """Return the type of one vector of a job, whose settings are in its ``job.json``."""
    return vector_dtype(job.get("output_precision", "float32"), job["dim"])


def _join(output: OutputSpec, parts: Sequence[Path], rows: int, row: np.dtype[Any]) -> str:
    format = FORMATS[output.format]
    # Written among the shards, so that a killed process leaves nothing next to the output.
    whole = output.folder / f"whole{format.suffix}"
    with replacement(whole, remedy=CONTINUE) as path:
        format.join(parts, path, rows, row)
        if format.count(path) != rows or not format.holds(path, parts, rows, row):
            raise ConfigError(
                f"{output.path}: the disk returns other data than was written; check the disk; "
                f"the shards are kept in {output.folder}"
            )
        digest = sha256_of(path)
    move(whole, output.path, remedy=CONTINUE)
    return digest


def _write_manifest(folder: Path, job: dict[str, Any], shards: Sequence[Shard], rows: int) -> str:
    listed = [asdict(shard) for shard in shards]
    document = {"rows": rows, "dtype": row_type(job).base.name, **job, "shards": listed}
    write_atomic(folder / MANIFEST, json.dumps(document, indent=1) + "\n")
    return sha256_of(folder / MANIFEST)


def remove_files(folder: Path) -> None:
    """Remove the files of a job, and the folder if it is then empty."""
    remove_leftovers(folder)
    for pattern in ("part-*", "whole.*", "journal-*.jsonl", MANIFEST, RANGES, JOB):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()
