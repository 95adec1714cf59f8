"""Proof, for a user's own configuration, that a killed and resumed run is the uninterrupted one."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simcse_kit.config import RunConfig
from simcse_kit.errors import ConfigError, SimcseError
from simcse_kit.training.allowed_calls import grant_flags
from simcse_kit.training.plan import check
from simcse_kit.training.state.checkpoints import SEAL, checkpoint_steps
from simcse_kit.training.state.output_dir import CHECKPOINTS, METRICS, RESULT
from simcse_kit.utils.files import write_whole

__all__ = ["Verification", "differences", "verify_resume"]

# What tells of the time that passed, or of the place, and so differs between equal runs.
_TIMES = ("sentences_per_second", "best_model_checkpoint", "total_flos")
_NOT_COMPARED = ("run.toml", "result.json", "README.md", "training.html", METRICS)
_POLL = 0.02
_TRIES = 5


@dataclass(frozen=True)
class Verification:
    """What came of it.

    Attributes:
        steps: of each run.
        killed_at: the newest checkpoint's step at each kill; 0 where there was none yet.
        compared: files and logs that were held against each other.
        different: those that differ, with how.
    """

    steps: int
    killed_at: list[int]
    compared: int
    different: list[str]


def verify_resume(
    config: RunConfig,
    folder: Path,
    *,
    steps: int = 6,
    kills: int = 2,
    seed: int = 0,
    allow_call: Collection[str] = (),
) -> Verification:
    """Train twice for a few steps: in one go, and killed (SIGKILL) at random and resumed.

    Each run is a process of its own, started as a user would. Checkpoints are written every third
    of the steps.

    Args:
        config: the run; ``training.output`` and ``training.max_steps`` are not looked at.
        folder: an existing, empty one; both runs go there.
        steps: of each run, 3 or more.
        kills: how often the second run is killed, 1 or more.
        seed: of the moments at which it is killed.
        allow_call: modules whose functions augmentations may call.

    Raises:
        ConfigError: too few steps or kills, or the run ended each time before it could be killed.
        SimcseError: the run itself is refused; the message is the run's own.
    """
    if steps < 3 or kills < 1:
        raise ConfigError(
            f"verify-resume needs 3 steps and 1 kill at least, got {steps} steps and {kills} kills"
        )
    _check(config, allow_call)
    flags = grant_flags(config, allow_call)
    whole, cut = folder / "whole", folder / "killed"
    for place in (whole, cut):
        write_whole(folder / f"{place.name}.toml", _short(config, place, steps).to_toml())
    began = time.monotonic()
    _finish(_start(folder / "whole.toml", flags))
    trained: float = json.loads((whole / RESULT).read_text(encoding="utf-8"))["seconds"]
    opening = time.monotonic() - began - trained

    moments = random.Random(seed)
    for _ in range(_TRIES):
        shutil.rmtree(cut, ignore_errors=True)  # a run that could not be killed in time
        killed = _run_killed(folder / "killed.toml", flags, cut, kills, opening, trained, moments)
        if killed:
            break
    else:
        raise ConfigError(
            f"the run of {steps} steps ended each time before it could be killed; give more --steps"
        )
    compared, different = differences(whole, cut)
    return Verification(steps, killed, compared, different)


def differences(whole: Path, other: Path) -> tuple[int, list[str]]:
    """Hold two finished runs against each other: encoders, newest checkpoints, logs.

    Returns:
        How much was compared, and what differs.
    """
    found = []
    names = sorted({*_files(whole), *_files(other)})
    for name in names:
        ours, theirs = whole / name, other / name
        if not (ours.is_file() and theirs.is_file()):
            found.append(f"{name} is there in one run only")
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
    """The encoder's files, and those of the newest checkpoint but for the seal."""
    steps = checkpoint_steps(run / CHECKPOINTS)
    newest = steps[max(steps)]
    for path in run.rglob("*"):
        name = path.relative_to(run)
        if not path.is_file() or name.as_posix() in _NOT_COMPARED:
            continue
        if name.parts[0] != CHECKPOINTS or (newest in path.parents and path.name != SEAL):
            yield name.as_posix()


def _check(config: RunConfig, allow_call: Collection[str]) -> None:
    """Refuse what the runs themselves would refuse, in this process and at once."""
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
    command = [sys.executable, "-m", "simcse_kit", "--quiet", "train", "--config", str(config)]
    return subprocess.Popen(
        [*command, *flags, *["--resume"] * resume],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _run_killed(
    config: Path,
    flags: list[str],
    output: Path,
    kills: int,
    opening: float,
    trained: float,
    moments: random.Random,
) -> list[int]:
    """A run from its start to its end, killed on the way; its newest checkpoint at each kill."""
    killed: list[int] = []
    running = _start(config, flags)
    # The first time after a checkpoint, so that there is something to go on from.
    wait = moments.uniform(0, trained / 2)
    while len(killed) < kills and _killed(running, output, wait, checkpoint=not killed):
        killed.append(max(checkpoint_steps(output / CHECKPOINTS), default=0))
        running = _start(config, flags, resume=True)
        wait = moments.uniform(opening / 2, opening + trained / 4)
    _finish(running)
    return killed


def _finish(running: subprocess.Popen[str]) -> None:
    _, said = running.communicate()
    if running.returncode:
        last = (said.strip().splitlines() or ["no message"])[-1]
        raise SimcseError(last.removeprefix("simcse: error: "))


def _killed(running: subprocess.Popen[str], folder: Path, wait: float, *, checkpoint: bool) -> bool:
    """Kill a run once it has waited; whether it had not ended by itself before."""
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
