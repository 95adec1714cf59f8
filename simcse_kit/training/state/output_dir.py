"""The output folder of a run, and who may write into it."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from simcse_kit.config import RunConfig
from simcse_kit.errors import ConfigError
from simcse_kit.training.state.replacement import (
    begin_replacing,
    finish_replacing,
    new_run_in,
    place_of_new_run,
)
from simcse_kit.utils.files import remove_leftovers, write_whole

__all__ = [
    "CHECKPOINTS",
    "HELD_OUT_DIGEST",
    "METRICS",
    "RESULT",
    "RUN_FILE",
    "TEXT_DIGEST",
    "check_output",
    "claim_folder",
    "keep_chunks",
]

logger = logging.getLogger(__name__)

RUN_FILE = "run.toml"
METRICS = "metrics.jsonl"
RESULT = "result.json"
CHECKPOINTS = "checkpoints"
TEXT_DIGEST = "training-text.sha256"
HELD_OUT_DIGEST = "held-out-rows.sha256"
_CHUNKS = "chunk-tokens"
_WHOLE = "whole batch"


def check_output(folder: Path, *, resume: bool, overwrite: bool) -> Path:
    """Check that a run may use its output folder; nothing is written yet.

    Args:
        folder: of the finished run.
        resume: the run goes on with what is in the folder.
        overwrite: the run replaces an earlier one.

    Returns:
        The folder to write into: the output folder, or where a run is kept that is to replace the
        one in it, see :mod:`simcse_kit.training.state.replacement`.

    Raises:
        ConfigError: the folder holds something else, or another run, or nothing to resume, or
            cannot be written.
    """
    if resume and overwrite:
        raise ConfigError(
            "--resume goes on with the run in the output folder and --overwrite starts a new one; "
            "give one of them"
        )
    try:
        finish_replacing(folder)
        _check_place(folder)
        earlier = (folder / RUN_FILE).exists()
        if resume:
            place = new_run_in(folder) or folder
            if not (place / RUN_FILE).exists():
                raise ConfigError(
                    f"nothing to resume in {folder}: no run was begun there; run without --resume"
                )
            return place
        if folder.is_dir() and any(folder.iterdir()):
            if not earlier:
                raise ConfigError(
                    f"output folder {folder} holds other files; give --output a new folder"
                )
            if not overwrite:
                raise ConfigError(
                    f"output folder {folder} holds an earlier run; --resume goes on with it, "
                    "--overwrite replaces it, or give --output another folder"
                )
            return place_of_new_run(folder)
    except OSError as error:
        raise _unusable(folder, error.strerror or str(error)) from None
    return folder


def claim_folder(
    place: Path, folder: Path, config: RunConfig, fingerprint: str, held_out: str, *, resume: bool
) -> None:
    """Write the resolved configuration into a checked folder.

    Args:
        place: to write into, from :func:`check_output`.
        folder: of the finished run.
        config: the run.
        fingerprint: of the training text.
        held_out: digest of the rows kept back.
        resume: the run goes on with what is there.

    Raises:
        ConfigError: the folder cannot be written.
    """
    try:
        if not resume and place != folder:
            begin_replacing(place)
            logger.info(
                "the earlier run in %s is kept until this one is complete, which is in %s so far",
                folder,
                place,
            )
        (place / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        for path in (place, place / CHECKPOINTS):
            remove_leftovers(path)
        write_whole(place / CHECKPOINTS / TEXT_DIGEST, fingerprint + "\n")
        write_whole(place / CHECKPOINTS / HELD_OUT_DIGEST, held_out + "\n")
        write_whole(place / RUN_FILE, config.to_toml())
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
            "write it again, or start a new run with --overwrite"
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
