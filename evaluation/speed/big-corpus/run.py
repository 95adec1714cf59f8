"""Train a few steps on 200 thousand and on 10 million lines; measure start, memory and speed.

    python evaluation/speed/big-corpus/run.py path/to/sentences.txt --work DIR

Trains twice on each corpus: the first run reads the text, the second finds it in the cache. Lines
of the file are repeated, with a number appended, up to the wanted count. Writes results.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
COUNTS = (200_000, 10_000_000)


def write_lines(source: Path, target: Path, count: int) -> None:
    lines = source.read_text(encoding="utf-8").strip().split("\n")
    with target.open("w", encoding="utf-8") as file:
        for number in range(count):
            file.write(f"{lines[number % len(lines)]} {number // len(lines)}\n")


def peak_and_output(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Run a command; return its peak resident memory in MB, and its output."""
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"failed: {' '.join(command)}")
    return usage.ru_maxrss // 1024, output


def trained(corpus: Path, work: Path, count: int, steps: int) -> dict[str, Any]:
    output = work / "encoder"
    command = ["simcse", "train", str(corpus), "--preset", "mini-unsup", "--overwrite", "--json"]
    command += ["--max-steps", str(steps), "--batch-size", "32", "--output", str(output)]
    command += ["--set", "evaluation.held_out=64", "--set", "training.log_every=1"]
    # Evaluate only at the first and the last step, so that the measured speed is that of training.
    command += ["--set", f"evaluation.every={steps}"]
    environment = os.environ | {"SIMCSE_CACHE": str(work / f"cache-{count}")}
    began = time.perf_counter()
    peak, printed = peak_and_output(command, environment)
    wall = time.perf_counter() - began
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    speeds = [row["sentences_per_second"] for row in rows if "sentences_per_second" in row]
    return {
        "seconds": round(wall, 1),
        "seconds_before_and_after_training": round(wall - json.loads(printed)["seconds"], 1),
        "sentences_per_second_median": round(statistics.median(speeds), 1),
        "peak_rss_mb": peak,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sentences", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    rows = []
    for count in options.counts:
        corpus = options.work / f"lines-{count}.txt"
        write_lines(options.sentences, corpus, count)
        size = round(corpus.stat().st_size / 1e6)
        for start in ("text read", "text cached"):
            measured = trained(corpus, options.work, count, options.steps)
            rows.append({"lines": count, "megabytes": size, "start": start, **measured})
            print(rows[-1])
    if tuple(options.counts) == COUNTS:
        (HERE / "results.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
