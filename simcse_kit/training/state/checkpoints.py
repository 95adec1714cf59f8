"""Checkpoints on disk: written whole, told from torn ones, thinned out."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from simcse_kit.errors import ConfigError
from simcse_kit.utils.checksums import sha256_of
from simcse_kit.utils.files import sync_folder

__all__ = [
    "SEAL",
    "checkpoint_steps",
    "flaw_of",
    "newest_checkpoint",
    "remove_torn_best",
    "remove_unfinished",
    "step_of",
    "written_whole",
]

logger = logging.getLogger(__name__)

SEAL = "complete.json"
"""The file that is written last: what the others must be."""

_NAME = "checkpoint-"
_UNFINISHED = ".writing-"


@contextmanager
def written_whole(place: Path) -> Iterator[Path]:
    """A folder to write a checkpoint to; it becomes ``place`` once the disk holds all of it.

    The sizes and SHA-256 sums of its files are sealed in it, so that :func:`flaw_of` can tell a
    checkpoint that a failing disk or an unfinished copy has torn.

    Raises:
        ConfigError: it cannot be written, for lack of room or otherwise; nothing is left of it,
            and checkpoints that were there stay.
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
        # There may be a torn one of that name.
        shutil.rmtree(place, ignore_errors=True)
        staging.rename(place)
        sync_folder(place)
    # torch and safetensors raise what they like where the disk is full.
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise ConfigError(
            f"checkpoint {place} cannot be written: {reason}; make room or mend the folder, then "
            "the same command with --resume goes on from the checkpoint before it"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def flaw_of(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint: a file that is missing, or not as it was written; or None.

    Every byte is read.
    """
    try:
        files = json.loads((checkpoint / SEAL).read_text(encoding="utf-8"))["files"]
        for name, (size, digest) in files.items():
            path = checkpoint / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != size:
                return f"{name} has {path.stat().st_size:,} of {size:,} bytes"
            if sha256_of(path) != digest:
                return f"{name} is not as it was written"
    except FileNotFoundError:
        return f"it has no {SEAL}, which is written last"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{SEAL} cannot be read ({type(error).__name__})"
    return None


def checkpoint_steps(folder: Path) -> dict[int, Path]:
    """The checkpoints in ``folder`` by step, ascending, torn ones too."""
    steps = {
        int(path.name.removeprefix(_NAME)): path
        for path in folder.glob(f"{_NAME}*")
        if path.name.removeprefix(_NAME).isdecimal() and path.is_dir()
    }
    return dict(sorted(steps.items()))


def newest_checkpoint(folder: Path) -> Path | None:
    """The complete checkpoint with the most steps, or None; a torn one is said and passed over."""
    for path in reversed(checkpoint_steps(folder).values()):
        flaw = flaw_of(path)
        if flaw is None:
            return path
        logger.warning("checkpoint %s is torn and passed over: %s", path, flaw)
    return None


def remove_unfinished(folder: Path, newest: Path | None) -> None:
    """Remove what a killed run left half written, and torn checkpoints after ``newest``.

    Rotation counts checkpoints and keeps the last: it must not take a torn one for that.
    """
    for path in folder.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(path, ignore_errors=True)
    kept = -1 if newest is None else step_of(newest)
    for step, path in checkpoint_steps(folder).items():
        if step > kept:
            shutil.rmtree(path, ignore_errors=True)


def remove_torn_best(checkpoint: Path) -> None:
    """Remove the best checkpoint that a checkpoint names, if it is torn.

    Otherwise a run would be trained to its end and fail when it takes back its best weights.
    """
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    if state.get("best_model_checkpoint") is None:
        return
    best = checkpoint.parent / Path(state["best_model_checkpoint"]).name
    flaw = flaw_of(best)
    if flaw is not None:
        logger.warning(
            "the best checkpoint %s is torn and lost: %s; the best of those to come is kept",
            best,
            flaw,
        )
        shutil.rmtree(best, ignore_errors=True)


def step_of(checkpoint: str | Path) -> int:
    """The step of a checkpoint, from its name."""
    return int(Path(checkpoint).name.rpartition("-")[2])
