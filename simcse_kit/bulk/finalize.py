"""The end of a job: every shard verified, and made into one file or a folder with a manifest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from simcse_kit.bulk.formats import FORMATS
from simcse_kit.bulk.job_lock import finishing, others_at_work
from simcse_kit.bulk.output import Target
from simcse_kit.bulk.shard_log import JOB, MANIFEST, Entry, Journal
from simcse_kit.errors import ConfigError
from simcse_kit.utils.checksums import sha256_of
from simcse_kit.utils.files import move, remove_leftovers, replacement, write_whole

__all__ = ["AGAIN", "clear", "finish"]

AGAIN = "make room, then the same command goes on"
"""The remedy where a disk is full."""


def finish(journal: Journal, target: Target, shards: int, rows: int) -> str | None:
    """Verify a job, and join it if one file is wanted; one process of the job at a time.

    Args:
        journal: of the job.
        target: where the vectors go.
        shards: of the whole job.
        rows: of the whole job.

    Returns:
        SHA-256 of the file, or of the manifest of a folder; None where shards are missing yet.

    Raises:
        ConfigError: a shard or the file is not as it was written, or the file cannot be written.
    """
    with finishing(target):
        return _finish(journal, target, shards, rows)


def _finish(journal: Journal, target: Target, shards: int, rows: int) -> str | None:
    finished = journal.finished()
    entries = [finished[number] for number in range(shards) if number in finished]
    if len(entries) < shards:
        return None
    for entry in entries:
        path = target.work / entry.file
        if not journal.is_whole(entry):
            path.unlink()
            raise ConfigError(
                f"{path} is not as it was written, and was removed; look at the disk, then the "
                "same command makes it again"
            )
    counted = sum(entry.rows for entry in entries)
    if counted != rows:
        raise ConfigError(
            f"{target.work} holds {counted:,} rows for {rows:,} sentences; start over with "
            "--overwrite"
        )
    remove_leftovers(target.work, at_work=others_at_work(target))
    if not target.one_file:
        return _write_manifest(target.work, entries, rows)
    digest = _join(target, [target.work / entry.file for entry in entries], rows)
    clear(target.work)
    return digest


def _join(target: Target, parts: Sequence[Path], rows: int) -> str:
    dim = json.loads((target.work / JOB).read_text(encoding="utf-8"))["dim"]
    format = FORMATS[target.format]
    # Among the shards, so that nothing is left beside the target by a kill.
    whole = target.work / f"whole{format.suffix}"
    with replacement(whole, remedy=AGAIN) as path:
        format.join(parts, path, rows, dim)
        if format.count(path) != rows or not format.holds(path, parts, rows, dim):
            raise ConfigError(
                f"{target.path}: what the disk gives back is not what was written; look at the "
                f"disk; the shards are kept in {target.work}"
            )
        digest = sha256_of(path)
    move(whole, target.path, remedy=AGAIN)
    return digest


def _write_manifest(work: Path, entries: Sequence[Entry], rows: int) -> str:
    job = json.loads((work / JOB).read_text(encoding="utf-8"))
    shards = [asdict(entry) for entry in entries]
    document = {"rows": rows, "dtype": "float32", **job, "shards": shards}
    write_whole(work / MANIFEST, json.dumps(document, indent=1) + "\n")
    return sha256_of(work / MANIFEST)


def clear(work: Path) -> None:
    """Remove the files of a job, and the folder if nothing else is in it."""
    remove_leftovers(work)
    for pattern in ("part-*", "whole.*", "journal-*.jsonl", MANIFEST, JOB):
        for path in work.glob(pattern):
            path.unlink(missing_ok=True)
    if not any(work.iterdir()):
        work.rmdir()
