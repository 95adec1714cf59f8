"""Compare the losses of this kit and of the original step over more seeds than ``bench.py`` runs.

    python evaluation/speed/curve_seeds.py --shared DIR --model minilm --seeds 11:23

Both start from the same weights and see the same rows in the same order; head and dropout masks
differ. With ``--control`` the original step also runs with other dropout masks, which shows the
effect of chance alone. Appends to curve-seeds.csv the mean loss over the second half of each run.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

import torch
from harness.models import model_folder
from harness.texts import Data
from variants import original, training

RESULTS = Path(__file__).resolve().with_name("curve-seeds.csv")


def second_half(losses: list[float]) -> float:
    return round(statistics.fmean(losses[len(losses) // 2 :]), 7)


def difference(rows: list[dict[str, object]], side: str) -> str:
    """Return the mean difference to the original over the seeds, and its standard error."""
    pairs = [float(row[side]) - float(row["original"]) for row in rows]
    error = statistics.stdev(pairs) / len(pairs) ** 0.5
    return f"{side} - original: {statistics.fmean(pairs):.5f} ± {error:.5f}, {len(pairs)} seeds"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--model", choices=["minilm", "mini"], default="minilm")
    parser.add_argument("--seeds", default="11:23", help="FROM:TO, without TO")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--control", action="store_true", help="also run the control")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    work = Path(tempfile.mkdtemp())
    size, rate = (64, 3e-5) if arguments.model == "minilm" else (32, 1e-4)
    rows = [[text] for text in Data.find(arguments.shared).varied(arguments.steps * size)]
    (work / "rows.json").write_text(json.dumps(rows))
    params = {
        "model": str(model_folder(arguments.model, work)),
        "rows": str(work / "rows.json"),
        "batch": size,
        "steps": arguments.steps,
        "max_length": 32,
        "learning_rate": rate,
        "attention": "sdpa",
    }
    os.chdir(work)
    rows: list[dict[str, object]] = []
    for seed in range(*map(int, arguments.seeds.split(":"))):
        row = {
            "model": arguments.model,
            "seed": seed,
            "ours": second_half(training.run_losses(params, seed)),
            "original": second_half(original.run_losses(params, seed)),
            "control": "",
        }
        if arguments.control:
            row["control"] = second_half(original.run_losses(params, seed, dropout=100_000 + seed))
        with RESULTS.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, list(row), lineterminator="\n").writerow(row)
        rows.append(row)
        if len(rows) > 1:
            for side in ("ours", "control")[: 1 + arguments.control]:
                print(difference(rows, side), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
