"""Verification that a killed and resumed run equals an uninterrupted one, bit for bit."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simcse_kit.config import RunConfig
from simcse_kit.errors import ConfigError, SimcseError
from simcse_kit.training.child_process import error_line, permission_flags, train_command
from simcse_kit.training.prepare import check
from simcse_kit.training.state.checkpoints import SEAL, checkpoint_steps
from simcse_kit.training.state.output_dir import CHECKPOINTS, METRICS, RESULT
from simcse_kit.utils.files import write_atomic

__all__ = ["Verification", "differences", "verify_resume"]

# Keys and files that depend on time or place, and so differ between equal runs.
_TIMES = ("sentences_per_second", "best_model_checkpoint", "total_flos")
_NOT_COMPARED = ("run.toml", "result.json", "README.md", "training.html", METRICS)
_POLL = 0.02
_TRIES = 5


@dataclass(frozen=True)
class Verification:
    """Result of a verification.

    Attributes:
        steps: number of steps of each run.
        killed_at: step of the newest checkpoint at each kill; 0 if there was none yet.
        compared: number of files and logs that were compared.
        different: a sentence for each of them that differs.
    """

    steps: int
    killed_at: list[int]
    compared: int
    different: list[str]

    def text(self) -> str:
        """Describe the result in a few lines."""
        places = ", ".join(f"after the checkpoint of step {step}" for step in self.killed_at)
        same = f"equal, bit for bit ({self.compared} files and logs)"
        lines = [f"  {what}" for what in self.different or [same]]
        head = f"{self.steps} steps without interruption, and killed {places}, and resumed:"
        return "\n".join([head, *lines])


def verify_resume(
    config: RunConfig,
    folder: Path,
    *,
    steps: int = 6,
    kills: int = 2,
    seed: int = 0,
    allow_call: Collection[str] = (),
) -> Verification:
    """Train twice for a few steps: without interruption, and killed (SIGKILL) and resumed.

    Each run is a separate process, started as a user would start it. Checkpoints are written every
    third of the steps.

    Args:
        config: the configuration; ``training.output`` and ``training.max_steps`` are ignored.
        folder: an existing, empty folder for both runs.
        steps: number of steps of each run, 3 or more.
        kills: how often the second run is killed, 1 or more.
        seed: seed of the random times at which it is killed.
        allow_call: modules whose functions augmentations may call.

    Raises:
        ConfigError: there are too few steps or kills, or the run always ended before it could be
            killed.
        SimcseError: the run itself is refused; the message is that of the run.
    """
    if steps < 3 or kills < 1:
        raise ConfigError(
            f"verify-resume needs at least 3 steps and 1 kill, got {steps} steps and {kills} kills"
        )
    _check(config, allow_call)
    flags = permission_flags(config, allow_call)
    whole, cut = folder / "whole", folder / "killed"
    for place in (whole, cut):
        write_atomic(folder / f"{place.name}.toml", _short(config, place, steps).to_toml())
    began = time.monotonic()
    _finish(_start(folder / "whole.toml", flags))
    trained: float = json.loads((whole / RESULT).read_text(encoding="utf-8"))["seconds"]
    opening, rng = time.monotonic() - began - trained, random.Random(seed)
    for _ in range(_TRIES):
        shutil.rmtree(cut, ignore_errors=True)  # of a run that could not be killed in time
        waits = _waits(opening, trained, rng)
        killed = _run_killed(folder / "killed.toml", flags, cut, kills, waits)
        if killed:
            break
    else:
        raise ConfigError(
            f"the run of {steps} steps always ended before it could be killed; give more --steps"
        )
    compared, different = differences(whole, cut)
    return Verification(steps, killed, compared, different)


def differences(whole: Path, other: Path) -> tuple[int, list[str]]:
    """Compare two finished runs: encoders, newest checkpoints, logs.

    Returns:
        The number of files and logs that were compared, and a sentence for each that differs.
    """
    found = []
    names = sorted({*_files(whole), *_files(other)})
    for name in names:
        ours, theirs = whole / name, other / name
        if not (ours.is_file() and theirs.is_file()):
            found.append(f"{name} exists in one run only")
        elif name.endswith("trainer_state.json"):
            if _timeless(json.loads(ours.read_text())) != _timeless(json.loads(theirs.read_text())):
                found.append(f"{name} differs")
        elif ours.read_bytes() != theirs.read_bytes():
            found.append(f"{name} differs")
    logs = [
        [_timeless(json.loads(line)) for line in (run / METRICS).read_text().splitlines()]
        for run in (whole, other)
    ]
    if logs[0] != logs[1]:
        found.append(f"{METRICS} differs")
    return len(names) + 1, found


def _files(run: Path) -> Iterator[str]:
    """List the files of the encoder, and those of the newest checkpoint except the seal."""
    steps = checkpoint_steps(run / CHECKPOINTS)
    newest = steps[max(steps)]
    for path in run.rglob("*"):
        name = path.relative_to(run)
        if not path.is_file() or name.as_posix() in _NOT_COMPARED:
            continue
        if name.parts[0] != CHECKPOINTS or (newest in path.parents and path.name != SEAL):
            yield name.as_posix()


def _check(config: RunConfig, allow_call: Collection[str]) -> None:
    """Refuse at once what the runs themselves would refuse."""
    free = config.training.model_copy(update={"output": "simcse-verify-resume"})
    check(config.model_copy(update={"training": free}), allow_call=allow_call)


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if key not in _TIMES}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


def _short(config: RunConfig, output: Path, steps: int) -> RunConfig:
    every = max(1, steps // 3)
    evaluation = {"every": every, "trace_every": min(config.evaluation.trace_every, every)}
    training = {"output": str(output), "max_steps": steps, "log_every": 1, "report_to": []}
    return config.model_copy(
        update={
            "evaluation": config.evaluation.model_copy(update=evaluation),
            "training": config.training.model_copy(update=training),
        }
    )


def _start(config: Path, flags: list[str], *, resume: bool = False) -> subprocess.Popen[str]:
    return subprocess.Popen(
        train_command(config, [*flags, *["--resume"] * resume], quiet=True),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _waits(opening: float, trained: float, rng: random.Random) -> Iterator[float]:
    """Draw the seconds before each kill, from the times of the start and of the steps."""
    # The first kill comes after a checkpoint, so that there is something to resume.
    yield rng.uniform(0, trained / 2)
    while True:
        yield rng.uniform(opening / 2, opening + trained / 4)


def _run_killed(
    config: Path, flags: list[str], output: Path, kills: int, waits: Iterator[float]
) -> list[int]:
    """Train to the end with kills on the way; return the step of the newest checkpoint at each."""
    killed: list[int] = []
    running = _start(config, flags)
    while len(killed) < kills and _killed(running, output, next(waits), checkpoint=not killed):
        killed.append(max(checkpoint_steps(output / CHECKPOINTS), default=0))
        running = _start(config, flags, resume=True)
    _finish(running)
    return killed


def _finish(running: subprocess.Popen[str]) -> None:
    _, errors = running.communicate()
    if running.returncode:
        raise SimcseError(error_line(errors))


def _killed(running: subprocess.Popen[str], folder: Path, wait: float, *, checkpoint: bool) -> bool:
    """Kill a run after a time, from its first checkpoint on if ``checkpoint`` is true.

    Returns:
        False if the run ended before.
    """
    while checkpoint and not checkpoint_steps(folder / CHECKPOINTS):
        if running.poll() is not None:
            break
        time.sleep(_POLL)
    until = time.monotonic() + wait
    while running.poll() is None and time.monotonic() < until:
        time.sleep(_POLL)
    if running.poll() is not None:
        return False
    running.kill()
    running.communicate()
    return True
