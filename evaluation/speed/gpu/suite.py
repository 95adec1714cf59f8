"""The tests with the marker ``gpu``, in several processes with a time limit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
PATIENCE = 8.0  # seconds that pytest has to write its results after an interrupt


def run_tests(work: Path, device: str, paths: list[str], processes: int, seconds: float) -> Any:
    """Run the tests of ``paths``, and return their numbers and the names of the failed ones."""
    if find_spec("pytest") is None:
        return {"summary": "not run: pytest is not installed", "failed": []}
    running = [_start(work, device, paths, (n, processes)) for n in range(processes)]
    deadline, late = time.monotonic() + seconds, 0
    for process in running:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            late += 1
            _end(process)
    counts = dict.fromkeys(("passed", "failed", "skipped"), 0)
    names, reasons = [], {}
    for number in range(processes):
        report = work / f"tests-{number}.xml"
        if not report.is_file():
            names.append(f"process {number} left no results; see tests-{number}.log")
            continue
        for case in ET.parse(report).iter("testcase"):
            bad = case.find("failure") if case.find("failure") is not None else case.find("error")
            name = f"{case.get('classname')}::{case.get('name')}"
            if bad is not None:
                counts["failed"] += 1
                names.append(f"{name}: {' '.join((bad.get('message') or '').split())[:200]}")
            elif (skipped := case.find("skipped")) is not None:
                counts["skipped"] += 1
                reasons[name] = skipped.get("message") or ""
            else:
                counts["passed"] += 1
    text = ", ".join(f"{number} {word}" for word, number in counts.items())
    if late:
        text += f"; {late} of {processes} processes reached the limit of {seconds:.0f} s"
    return {"summary": text, **counts, "names": names, "failed": names, "skips": reasons}


def _start(
    work: Path, device: str, paths: list[str], shard: tuple[int, int]
) -> subprocess.Popen[bytes]:
    number, of = shard
    report = work / f"tests-{number}.xml"
    report.unlink(missing_ok=True)
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
    command += ["-q", "-rf", "-p", "no:cacheprovider", f"--junitxml={report}", *paths]
    given = {
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
    """Interrupt pytest, which then writes its results; kill what is left of its process group."""
    for sign in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
            process.wait(PATIENCE)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
