"""Compare the encoding speed of small and another model, in turn.

Usage: python evaluation/quality/small/speed.py MODEL --text FILE > speed.json

Both encode the same sentences in one process, A B A B; the first round does not count. Also
measured: whole processes that encode one sentence.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import torch

from simcse_kit import SentenceEncoder

ONE = (
    "from simcse_kit import SentenceEncoder as S; import sys; S.load(sys.argv[1]).encode('A dog.')"
)


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def in_turn(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, object]:
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            took = seconds(run)
            if number:
                times[name].append(took)
    small, other = (statistics.median(found) for found in times.values())
    return {"seconds": times, "small_is_faster_by": other / small}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder of the other model")
    parser.add_argument("--text", type=Path, required=True, help="one sentence per line")
    parser.add_argument("--sentences", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    with arguments.text.open(encoding="utf-8") as lines:
        texts = [line.rstrip("\n") for line in islice(lines, arguments.sentences)]
    encoders = {name: SentenceEncoder.load(name) for name in ("small", arguments.model)}

    def encoding(encoder: SentenceEncoder) -> Callable[[], object]:
        return lambda: encoder.encode(texts)

    def process(name: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, "-c", ONE, name], check=True)

    found = {
        "threads": torch.get_num_threads(),
        "sentences": len(texts),
        "encode": in_turn({name: encoding(e) for name, e in encoders.items()}, arguments.rounds),
        "one sentence, whole process": in_turn(
            {name: process(name) for name in encoders}, arguments.rounds
        ),
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
