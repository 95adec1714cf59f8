"""Remove exact and near duplicates from many lines, and measure time and memory of all processes.

    python evaluation/speed/scale/dedupe.py --work DIR --lines 100000 --engines local ray

Makes lines of random words, of which known shares are duplicates, and runs `simcse data dedupe` on
them with each engine. The resident memory of every process is sampled twice a second. Writes
dedupe-LINES.json, and ends with an error if the engines write different files.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).resolve().parent
SHARES = {"exact": 0.08, "normal": 0.04, "near": 0.05}
WORDS, WORDS_IN_LINE, LETTERS = 50_000, (8, 16), "abcdefghijklmnopqrstuvwxyz"
# Originals of duplicates are among this many earlier lines, so that they are far apart.
REMEMBERED = 200_000
MEGABYTE = 1 << 20


def write_lines(target: Path, count: int) -> dict[str, int]:
    """Write lines; return the number of duplicates of each kind among them."""
    rng = random.Random(0)
    words = ["".join(rng.choices(LETTERS, k=rng.randint(3, 9))) for _ in range(WORDS)]
    originals: list[str] = []
    made = dict.fromkeys(SHARES, 0)
    kinds = [*SHARES, "new"]
    weights = [*SHARES.values(), 1 - sum(SHARES.values())]
    with target.open("w", encoding="utf-8") as file:
        for kind in rng.choices(kinds, weights, k=count):
            if kind == "new" or not originals:
                line = " ".join(rng.choices(words, k=rng.randint(*WORDS_IN_LINE)))
                if len(originals) < REMEMBERED:
                    originals.append(line)
                else:
                    originals[rng.randrange(REMEMBERED)] = line
            else:
                made[kind] += 1
                line = rng.choice(originals)
                if kind == "normal":
                    line = line.capitalize() + "!" * rng.randint(1, 9)
                elif kind == "near":
                    line = f"{line} {''.join(rng.choices(LETTERS, k=4))}"
            file.write(line + "\n")
    return made


def role_of(process: psutil.Process) -> str:
    """Name what a process does: a worker of Ray, another part of Ray, or the command."""
    name = " ".join(process.cmdline()[:1]) or process.name()
    if name.startswith("ray::"):
        return "other parts of Ray" if "Agent" in name else "worker"
    known = ("raylet", "gcs_server", "dashboard", "log_monitor", "monitor.py", "ray/_private")
    text = " ".join(process.cmdline())
    return "other parts of Ray" if any(each in text for each in known) else "command"


def sample(command: psutil.Process, peaks: dict[int, dict[str, Any]]) -> None:
    """Update the highest memory of a process and of those that it started."""
    for process in (command, *command.children(recursive=True)):
        try:
            role = role_of(process)
            memory = process.memory_info()
        except psutil.Error:
            continue  # has ended
        peak = peaks[process.pid]
        peak["role"] = role
        peak["rss"] = max(peak["rss"], memory.rss)
        # Pages of the object store, which all workers share.
        peak["own"] = max(peak["own"], memory.rss - memory.shared)


def deduped(source: Path, output: Path, engine: str, level: str) -> dict[str, Any]:
    """Run the command; return its time, its counts, and the memory of its processes."""
    arguments = ["data", "dedupe", str(source), "--output", str(output), "--level", level]
    arguments += ["--engine", engine, "--overwrite", "--json"]
    command = [sys.executable, "-m", "simcse_kit", *arguments]
    peaks: dict[int, dict[str, Any]] = defaultdict(lambda: {"role": "", "rss": 0, "own": 0})
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            sample(watched, peaks)
            time.sleep(0.5)
        seconds = time.perf_counter() - began
        printed = process.stdout.read() if process.stdout is not None else ""
    if process.returncode:
        sys.exit(f"failed: {' '.join(command)}")
    summary = json.loads(printed)
    memory: dict[str, Any] = {}
    for role in ("command", "worker", "other parts of Ray"):
        found = [peak for peak in peaks.values() if peak["role"] == role]
        if found:
            memory[role] = {
                "processes": len(found),
                "highest_rss_mb": max(peak["rss"] for peak in found) // MEGABYTE,
                "highest_rss_without_shared_mb": max(peak["own"] for peak in found) // MEGABYTE,
            }
    return {
        "engine": engine,
        "level": level,
        "seconds": round(seconds, 1),
        "lines_per_second": round(summary["read"] / seconds),
        "rows": summary["rows"],
        "left_out": summary["left_out"],
        "memory": memory,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for the files")
    parser.add_argument("--lines", type=int, default=100_000)
    parser.add_argument("--engines", nargs="+", default=["ray"], help="local, ray or ray:ADDRESS")
    parser.add_argument("--levels", nargs="+", default=["normal", "near"])
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    source = options.work / f"lines-{options.lines}.txt"
    made = write_lines(source, options.lines)
    runs = []
    for level in options.levels:
        outputs = []
        for engine in options.engines:
            outputs.append(options.work / f"{level}-{engine.partition(':')[0]}.txt")
            runs.append(deduped(source, outputs[-1], engine, level))
            print(json.dumps(runs[-1]))
        if len({path.read_bytes() for path in outputs}) != 1:
            sys.exit(f"the engines wrote different files: {', '.join(map(str, outputs))}")
    report = {
        "lines": options.lines,
        "megabytes": round(source.stat().st_size / 1e6, 1),
        "cpus": psutil.cpu_count(),
        "duplicates_made": made,
        "runs": runs,
    }
    target = HERE / f"dedupe-{options.lines}.json"
    target.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
