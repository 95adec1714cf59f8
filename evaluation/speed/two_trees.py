"""Compare the speed of two checkouts of this repository, one fresh process per measurement.

    python evaluation/speed/two_trees.py OLD NEW sentences.txt --rounds 4

Prints the ratio of the medians, new / old, of loading, encoding, one sentence and a training step.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

MEASURE = """
import json, pathlib, statistics, sys, tempfile, time
import torch
torch.set_num_threads(1)
from simcse_kit import RunConfig, SentenceEncoder, train
from simcse_kit.training.trainer import ContrastiveTrainer
texts, size = pathlib.Path(sys.argv[1]).read_text().splitlines(), int(sys.argv[2])
found, clock = {}, time.perf_counter
encoder = SentenceEncoder.load("mini")
start = clock(); [SentenceEncoder.load("mini") for _ in range(8)]
found["load"] = (clock() - start) / 8
encoder.encode(texts[:100])
start = clock(); encoder.encode(texts[:size]); found["encode"] = clock() - start
start = clock(); [encoder.encode("A dog runs.") for _ in range(300)]
found["one sentence"] = (clock() - start) / 300
times, step = [], ContrastiveTrainer.training_step
def timed(self, *args, **kwargs):
    times.append(clock())
    return step(self, *args, **kwargs)
ContrastiveTrainer.training_step = timed
with tempfile.TemporaryDirectory() as folder:
    data = pathlib.Path(folder, "texts.txt")
    data.write_text("\\n".join(texts[:1500]) + "\\n")
    train(RunConfig.model_validate({
        "data": {"train": [str(data)]},
        "evaluation": {"trace_every": 0, "held_out": 0},
        "training": {"output": f"{folder}/out", "max_steps": 20, "batch_size": 64},
    }))
found["training step"] = statistics.median(b - a for a, b in zip(times[5:-1], times[6:]))
print("RESULT", json.dumps(found))
"""


def measure(tree: Path, text: Path, size: int) -> dict[str, float]:
    """Return the seconds of each measurement with the code of one checkout."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(text), str(size)],
        env=os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        cwd=tree,
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout.split("RESULT ")[1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("old", type=Path, help="checkout to compare with")
    parser.add_argument("new", type=Path, help="checkout to judge")
    parser.add_argument("text", type=Path, help="file with one sentence per line, 1,500 or more")
    parser.add_argument("--rounds", type=int, default=4, help="measurements of each checkout")
    parser.add_argument("--size", type=int, default=3000, help="number of sentences to encode")
    options = parser.parse_args()
    seconds: dict[str, list[list[float]]] = defaultdict(lambda: [[], []])
    for _ in range(options.rounds):
        for side, tree in enumerate((options.old, options.new)):
            found = measure(tree.resolve(), options.text.resolve(), options.size)
            for name, value in found.items():
                seconds[name][side].append(value)
    for name, (old, new) in seconds.items():
        print(f"{name:14} {statistics.median(new) / statistics.median(old):.3f}")


if __name__ == "__main__":
    main()
