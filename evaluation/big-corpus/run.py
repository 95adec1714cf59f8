"""Train a few steps on 200 thousand and on 10 million lines: time and peak memory of the process.

    python evaluation/big-corpus/run.py path/to/sentences.txt --work DIR

The lines of the file are repeated with a number until there are enough. Writes results.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent


def write_lines(source: Path, target: Path, count: int) -> None:
    lines = source.read_text(encoding="utf-8").strip().split("\n")
    with target.open("w", encoding="utf-8") as file:
        for number in range(count):
            file.write(f"{lines[number % len(lines)]} {number // len(lines)}\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sentences", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    rows = []
    for count in (200_000, 10_000_000):
        corpus = options.work / f"lines-{count}.txt"
        write_lines(options.sentences, corpus, count)
        command = ["simcse", "train", str(corpus), "--preset", "mini-unsup", "--max-steps", "5"]
        command += ["--batch-size", "32", "--set", "evaluation.held_out=64", "--overwrite"]
        command += ["--output", str(options.work / "encoder")]
        environment = os.environ | {"SIMCSE_CACHE": str(options.work / f"cache-{count}")}
        began = time.perf_counter()
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        rows.append(
            {
                "lines": count,
                "megabytes": round(corpus.stat().st_size / 1e6),
                "seconds": round(time.perf_counter() - began, 1),
                # The largest child so far: the counts rise, so the later one is the larger.
                "peak_rss_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024,
            }
        )
        print(rows[-1])
    (HERE / "results.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
