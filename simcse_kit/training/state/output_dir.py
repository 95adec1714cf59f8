"""Output folder of a run: checks, free disk space, and the files that claim it."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from simcse_kit.config import RunConfig
from simcse_kit.errors import ConfigError
from simcse_kit.methods.common.base import Method
from simcse_kit.training.state.checkpoints import checkpoint_steps
from simcse_kit.training.state.replacement import (
    begin_replacing,
    finish_replacing,
    new_run_in,
    place_of_new_run,
)
from simcse_kit.utils.files import free_bytes, remove_leftovers, why_unusable, write_atomic

__all__ = [
    "CHECKPOINTS",
    "HELD_OUT_DIGEST",
    "METRICS",
    "RESULT",
    "RUN_FILE",
    "TEXT_DIGEST",
    "check_output",
    "check_space",
    "checkpoint_bytes",
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
# Bytes of tokenizer, logs, curves and the state of the trainer.
_SMALL_FILES = 20_000_000


def check_output(folder: Path, *, resume: bool, overwrite: bool) -> Path:
    """Check that a run may use its output folder, without writing anything.

    Args:
        folder: the folder of the finished run.
        resume: whether the run continues the one in the folder.
        overwrite: whether the run replaces an earlier one in the folder.

    Returns:
        The folder to write into: the output folder itself, or a separate one for a run that will
        replace it, see :mod:`simcse_kit.training.state.replacement`.

    Raises:
        ConfigError: the folder contains other files, or another run, or no run to resume, or
            cannot be written.
    """
    if resume and overwrite:
        raise ConfigError(
            "--resume continues the run in the output folder and --overwrite starts a new one; "
            "give one of them"
        )
    try:
        finish_replacing(folder)
        if reason := why_unusable(folder):
            raise _unusable(folder, reason)
        earlier = (folder / RUN_FILE).exists()
        if resume:
            place = new_run_in(folder) or folder
            if not (place / RUN_FILE).exists():
                raise ConfigError(
                    f"nothing to resume in {folder}: no run was started there; run without --resume"
                )
            return place
        if folder.is_dir() and any(folder.iterdir()):
            if not earlier:
                raise ConfigError(
                    f"output folder {folder} contains other files; give --output a new folder"
                )
            if not overwrite:
                raise ConfigError(
                    f"output folder {folder} contains an earlier run; --resume continues it, "
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
        place: the folder to write into, from :func:`check_output`.
        folder: the folder of the finished run.
        config: the configuration of the run.
        fingerprint: fingerprint of the training text.
        held_out: digest of the held-out rows.
        resume: whether the run continues the one in ``place``.

    Raises:
        ConfigError: the folder cannot be written.
    """
    try:
        if not resume and place != folder:
            begin_replacing(place)
            logger.info(
                "the earlier run in %s is kept until the new run, which is in %s, is complete",
                folder,
                place,
            )
        (place / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        for path in (place, place / CHECKPOINTS):
            remove_leftovers(path)
        write_atomic(place / CHECKPOINTS / TEXT_DIGEST, fingerprint + "\n")
        write_atomic(place / CHECKPOINTS / HELD_OUT_DIGEST, held_out + "\n")
        write_atomic(place / RUN_FILE, config.to_toml())
    except OSError as error:
        raise _unusable(folder, error.strerror or str(error)) from None


def checkpoint_bytes(method: Method) -> int:
    """Estimate a checkpoint: parameters, buffers, and Adam's two moments of trained parameters."""
    trained = [weight for weight in method.parameters() if weight.requires_grad]
    return sum(map(_bytes, method.state_dict().values())) + 2 * sum(map(_bytes, trained))


def check_space(method: Method, checkpoints: Path, kept: int | None, writes: int) -> None:
    """Refuse a run that would fill the disk, before its first step.

    Args:
        method: the method to train.
        checkpoints: the folder of the checkpoints; existing ones need no further space.
        kept: most checkpoints kept at a time; None keeps all.
        writes: number of times that a checkpoint is written.

    Raises:
        ConfigError: the free space is too small.
    """
    size = checkpoint_bytes(method)
    # The newest checkpoint is written before the oldest is removed.
    most = writes if kept is None else min(writes, kept + 1)
    new = max(1, most - len(checkpoint_steps(checkpoints)))
    encoder = sum(map(_bytes, method.encoder.state_dict().values()))
    needed, free = new * size + 2 * encoder + _SMALL_FILES, free_bytes(checkpoints)
    if needed > free:
        raise ConfigError(
            f"training.output: the run will write about {needed / 1e6:,.0f} MB ({new} checkpoints "
            f"of {size / 1e6:,.0f} MB, and the encoder) and {checkpoints.parent} has "
            f"{free / 1e6:,.0f} MB free; free some space or give --output a folder on another disk"
        )


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def keep_chunks(folder: Path, chunk_tokens: int | None, *, resume: bool) -> int | None:
    """Record the chunk size of a new run, or read that of the run to resume.

    The dropout masks depend on the chunk size, which a memory budget may choose differently the
    next time.

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
        write_atomic(path, f"{_WHOLE if chunk_tokens is None else chunk_tokens}\n")
    except OSError as error:
        raise _unusable(folder, error.strerror or str(error)) from None
    except ValueError:
        raise ConfigError(
            f"{path} is damaged: it must contain a number of tokens or {_WHOLE!r}; "
            "restore it, or start a new run with --overwrite"
        ) from None
    return chunk_tokens


def _unusable(folder: Path, reason: str) -> ConfigError:
    return ConfigError(f"output folder {folder} cannot be used: {reason}; give --output another")
