"""The tests with the marker ``gpu``, in several processes with a time limit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
PATIENCE = 5.0  # seconds that pytest has to clean up after an interrupt


def run_tests(work: Path, device: str, paths: list[str], processes: int, seconds: float) -> Any:
    """Run the tests of ``paths``; return their numbers, and the failed and skipped ones by name."""
    if find_spec("pytest") is None:
        return {"summary": "not run: pytest is not installed", "failures": {}}
    running = [_start(work, device, paths, (n, processes)) for n in range(processes)]
    deadline = time.monotonic() + seconds
    results: dict[str, tuple[str, str]] = {}
    for number, process in enumerate(running):
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
            ended = f"its process ended with code {process.returncode}"
        except subprocess.TimeoutExpired:
            _end(process)
            ended = f"it was running at the limit of {seconds:.0f} s"
        mine = _read(work / f"tests-{number}.jsonl")
        results |= {
            name: ("failed", ended) if outcome == "started" else (outcome, reason)
            for name, (outcome, reason) in mine.items()
        }
        if not mine and process.returncode not in (0, 5):  # 5: no tests for this process
            results[f"process {number}"] = ("failed", f"{ended}; see tests-{number}.log")
    words = ("passed", "failed", "skipped")
    counts = {word: sum(outcome == word for outcome, _ in results.values()) for word in words}

    def those(word: str) -> dict[str, str]:
        return {name: reason for name, (outcome, reason) in results.items() if outcome == word}

    text = ", ".join(f"{number} {word}" for word, number in counts.items())
    return {"summary": text, **counts, "failures": those("failed"), "skips": those("skipped")}


def _read(file: Path) -> dict[str, tuple[str, str]]:
    """Return the last outcome of each test and its reason."""
    if not file.is_file():
        return {}
    rows = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    return {row["name"]: (row["outcome"], row["reason"]) for row in rows}


def _start(
    work: Path, device: str, paths: list[str], shard: tuple[int, int]
) -> subprocess.Popen[bytes]:
    number, of = shard
    results = work / f"tests-{number}.jsonl"
    results.unlink(missing_ok=True)
    # Without the settings of pyproject.toml that need pytest-timeout, and with warnings of other
    # versions of the libraries.
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-m",
        "gpu",
        "-o",
        "addopts=",
        "-o",
        "filterwarnings=",
    ]
    command += ["-q", "-rf", "-p", "no:cacheprovider", "-p", "gpu.recorder", *paths]
    folders = [str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    given = {
        "GPU_CHECK_RESULTS": str(results),
        "PYTHONPATH": os.pathsep.join(folders),
        "SIMCSE_TEST_DEVICE": device,
        "SIMCSE_TEST_SHARD": f"{number}/{of}",
        "OMP_NUM_THREADS": "2",
        "HF_HUB_OFFLINE": "1",
    }
    with (work / f"tests-{number}.log").open("wb") as log:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | given,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Interrupt pytest, then kill what is left of its process group."""
    for sign in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
            process.wait(PATIENCE)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
