"""Atomic writes, corruption detection and clean-up of checkpoints."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from simcse_kit.errors import ConfigError
from simcse_kit.utils.files import sha256_of, sync_folder

__all__ = [
    "SEAL",
    "checkpoint_steps",
    "checkpoint_to_resume",
    "flaw_of",
    "log_of",
    "newest_checkpoint",
    "remove_corrupt_best",
    "remove_unfinished",
    "step_of",
    "written_whole",
]

logger = logging.getLogger(__name__)

SEAL = "complete.json"
"""File that is written last, with the sizes and checksums of all others."""

_NAME = "checkpoint-"
_UNFINISHED = ".writing-"


@contextmanager
def written_whole(place: Path) -> Iterator[Path]:
    """Yield a folder to write a checkpoint to; rename it to ``place`` once it is on the disk.

    The file :data:`SEAL` records sizes and SHA-256 sums, so that :func:`flaw_of` can detect a
    checkpoint that a failing disk or an incomplete copy has corrupted.

    Raises:
        ConfigError: the checkpoint cannot be written, for example because the disk is full; what
            was written is removed, and earlier checkpoints stay.
    """
    staging = place.with_name(_UNFINISHED + place.name)
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.mkdir(parents=True)
        yield staging
        files = {
            path.relative_to(staging).as_posix(): [path.stat().st_size, sha256_of(path)]
            for path in sorted(staging.rglob("*"))
            if path.is_file()
        }
        (staging / SEAL).write_text(json.dumps({"files": files}, indent=1), encoding="utf-8")
        sync_folder(staging)
        # A corrupt checkpoint may have that name.
        shutil.rmtree(place, ignore_errors=True)
        staging.rename(place)
        sync_folder(place)
    # torch and safetensors raise different errors if the disk is full.
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise ConfigError(
            f"checkpoint {place} cannot be written: {reason}; free disk space or fix the folder, "
            "then the same command with --resume continues from the checkpoint before it"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def flaw_of(checkpoint: Path) -> str | None:
    """Read every byte of a checkpoint and describe what is missing or changed; None if intact."""
    try:
        files = json.loads((checkpoint / SEAL).read_text(encoding="utf-8"))["files"]
        for name, (size, digest) in files.items():
            path = checkpoint / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != size:
                return f"{name} has {path.stat().st_size:,} of {size:,} bytes"
            if sha256_of(path) != digest:
                return f"{name} has changed since it was written"
    except FileNotFoundError:
        return f"{SEAL}, which is written last, is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{SEAL} cannot be read ({type(error).__name__})"
    return None


def checkpoint_steps(folder: Path) -> dict[int, Path]:
    """List the checkpoints in ``folder`` by step, ascending; corrupt ones are included."""
    steps = {
        int(path.name.removeprefix(_NAME)): path
        for path in folder.glob(f"{_NAME}*")
        if path.name.removeprefix(_NAME).isdecimal() and path.is_dir()
    }
    return dict(sorted(steps.items()))


def newest_checkpoint(folder: Path) -> Path | None:
    """Find the intact checkpoint with the most steps; corrupt checkpoints are logged and skipped.

    Returns:
        The folder of the checkpoint; None if there is none.
    """
    for path in reversed(checkpoint_steps(folder).values()):
        flaw = flaw_of(path)
        if flaw is None:
            return path
        logger.warning("checkpoint %s is corrupt and is skipped: %s", path, flaw)
    return None


def checkpoint_to_resume(folder: Path) -> Path | None:
    """Find the checkpoint to continue from, and remove later ones that cannot be used."""
    checkpoint = newest_checkpoint(folder)
    remove_unfinished(folder, checkpoint)
    if checkpoint is None:
        logger.warning("%s has no complete checkpoint; the run starts with its first step", folder)
    else:
        remove_corrupt_best(checkpoint)
        logger.info("resuming from step %d", step_of(checkpoint))
    return checkpoint


def remove_unfinished(folder: Path, newest: Path | None) -> None:
    """Remove what a killed run left half written, and corrupt checkpoints after ``newest``.

    Rotation keeps the last checkpoints, and must not keep a corrupt one instead of an intact one.
    """
    for path in folder.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(path, ignore_errors=True)
    kept = -1 if newest is None else step_of(newest)
    for step, path in checkpoint_steps(folder).items():
        if step > kept:
            shutil.rmtree(path, ignore_errors=True)


def remove_corrupt_best(checkpoint: Path) -> None:
    """Remove the best checkpoint that ``checkpoint`` names, if it is corrupt.

    Otherwise a run would train to its end and fail when it loads its best weights.
    """
    state = _state_of(checkpoint)
    if state.get("best_model_checkpoint") is None:
        return
    best = checkpoint.parent / Path(state["best_model_checkpoint"]).name
    flaw = flaw_of(best)
    if flaw is not None:
        logger.warning(
            "the best checkpoint %s is corrupt and lost: %s; the best of the next ones is kept",
            best,
            flaw,
        )
        shutil.rmtree(best, ignore_errors=True)


def log_of(checkpoint: Path) -> list[dict[str, float]]:
    """Read the log of the trainer up to a checkpoint."""
    rows: list[dict[str, float]] = _state_of(checkpoint)["log_history"]
    return rows


def _state_of(checkpoint: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(
        (checkpoint / "trainer_state.json").read_text(encoding="utf-8")
    )
    return state


def step_of(checkpoint: str | Path) -> int:
    """Read the step of a checkpoint from its name."""
    return int(Path(checkpoint).name.rpartition("-")[2])
