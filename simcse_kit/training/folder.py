"""The output folder of a run: who may write into it, and what a resumed run must share with it."""

from __future__ import annotations

import logging
import os
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from simcse_kit.atomic import remove_leftovers, write_whole
from simcse_kit.config import RunConfig, read_toml
from simcse_kit.errors import ConfigError

__all__ = [
    "CHECKPOINTS",
    "METRICS",
    "RESULT",
    "RUN_FILE",
    "check_folder",
    "claim_folder",
    "keep_chunks",
]

logger = logging.getLogger(__name__)

RUN_FILE = "run.toml"
METRICS = "metrics.jsonl"
RESULT = "result.json"
CHECKPOINTS = "checkpoints"
_FINGERPRINT = "training-text.sha256"
_CHUNKS = "chunk-tokens"
_WHOLE = "whole batch"


def check_folder(
    config: RunConfig,
    fingerprint: str,
    *,
    resume: bool,
    overwrite: bool,
    allow_changed: bool = False,
) -> Path:
    """Check that the run may use its output folder; nothing is written yet.

    Args:
        config: the run.
        fingerprint: of the training text.
        resume: the run goes on with what is in the folder.
        overwrite: the run replaces an earlier one.
        allow_changed: a resumed run may differ from the one that was begun; how is logged.

    Raises:
        ConfigError: the folder holds something else, or another run, or nothing to resume, or
            cannot be written.
    """
    folder = Path(config.training.output)
    run_file = folder / RUN_FILE
    try:
        _check_place(folder)
        if resume:
            _check_resumable(folder, run_file, config, fingerprint, allow_changed)
        elif folder.is_dir() and any(folder.iterdir()):
            if not run_file.exists():
                raise ConfigError(
                    f"output folder {folder} holds other files; give --output a new folder"
                )
            if not overwrite:
                raise ConfigError(
                    f"output folder {folder} holds an earlier run; --resume goes on with it, "
                    "--overwrite starts anew, or give --output another folder"
                )
    except OSError as error:
        raise _unusable(folder, error.strerror or str(error)) from None
    return folder


def claim_folder(folder: Path, config: RunConfig, fingerprint: str, *, resume: bool) -> None:
    """Write the resolved configuration into a checked folder; clear what an earlier run left.

    Without its ``config.json`` the encoder of the earlier run does not pass for that of this run,
    should this run be interrupted.

    Raises:
        ConfigError: the folder cannot be written.
    """
    try:
        if not resume:
            shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
            for name in (METRICS, RESULT, "training.html", "config.json"):
                (folder / name).unlink(missing_ok=True)
            for companion in folder.glob("*/config.json"):
                companion.unlink()
        (folder / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        for place in (folder, folder / CHECKPOINTS):
            remove_leftovers(place)
        write_whole(folder / CHECKPOINTS / _FINGERPRINT, fingerprint + "\n")
        write_whole(folder / RUN_FILE, config.to_toml())
    except OSError as error:
        raise _unusable(folder, error.strerror or str(error)) from None


def keep_chunks(folder: Path, chunk_tokens: int | None, *, resume: bool) -> int | None:
    """Write down how a claimed run cuts its batches, or read how the run to go on with did.

    The dropout masks depend on it, and what a memory budget leaves room for may differ next time.

    Returns:
        The tokens of a chunk; None for batches in one piece.

    Raises:
        ConfigError: the folder cannot be written, or the file in it is damaged.
    """
    path = folder / CHECKPOINTS / _CHUNKS
    try:
        if resume and path.exists():
            kept = path.read_text(encoding="utf-8").strip()
            return int(kept) if kept != _WHOLE else None
        write_whole(path, f"{_WHOLE if chunk_tokens is None else chunk_tokens}\n")
    except OSError as error:
        raise _unusable(folder, error.strerror or str(error)) from None
    except ValueError:
        raise ConfigError(
            f"{path} is damaged: it must hold a number of tokens or {_WHOLE!r}; "
            "write it anew, or start the run anew with --overwrite"
        ) from None
    return chunk_tokens


def _unusable(folder: Path, reason: str) -> ConfigError:
    return ConfigError(f"output folder {folder} cannot be used: {reason}; give --output another")


def _check_place(folder: Path) -> None:
    place = folder
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise _unusable(folder, f"{place} is a file")
    if not os.access(place, os.W_OK | os.X_OK):
        raise _unusable(folder, f"no permission to write into {place}")


def _check_resumable(
    folder: Path, run_file: Path, config: RunConfig, fingerprint: str, allow_changed: bool
) -> None:
    if not run_file.exists():
        raise ConfigError(
            f"nothing to resume in {folder}: no run was begun there; run without --resume"
        )
    old, new = read_toml(run_file), tomllib.loads(config.to_toml())
    for table in (old, new):
        table.get("training", {}).pop("output", None)  # the same folder, however it is spelled
    changes = [
        f"{key} was {_shown(before)}, is {_shown(after)}"
        for key, before, after in _differences(old, new)
    ]
    kept = folder / CHECKPOINTS / _FINGERPRINT
    if kept.exists() and kept.read_text(encoding="utf-8").strip() != fingerprint:
        changes.append("the training text has other content")
    if not changes:
        return
    said = f"the run in {folder} was started with another configuration: {'; '.join(changes)}"
    if not allow_changed:
        raise ConfigError(
            f"{said}; give the same again, start a new run in another folder, or resume all the "
            "same with --allow-changed"
        )
    logger.warning("%s; it is resumed all the same, as you ask for", said)


def _differences(
    old: dict[str, Any], new: dict[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _differences(before, after, f"{prefix}{key}.")
        elif before != after:
            yield f"{prefix}{key}", before, after


def _shown(value: Any) -> str:
    return "not set" if value is None else repr(value)
