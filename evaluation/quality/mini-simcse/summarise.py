"""Print the table of README.md from results.csv."""

from __future__ import annotations

import argparse
import csv
import statistics
from collections import defaultdict
from pathlib import Path

RESULTS = Path(__file__).resolve().with_name("results.csv")
TASKS = ("STS12", "STS13", "STS14", "STS15", "STS16", "STSB", "SICKR")
ARMS = {
    "raw-mean": "raw, mean",
    "raw-first_last_mean": "raw, first-last mean",
    "raw-last_two_mean": "raw, last-two mean",
    "raw-cls_before_pooler": "raw, [CLS]",
    "raw-max": "raw, max",
    "unsup": "**simcse-unsup** (preset `mini-unsup`)",
    "unsup-mean": "the same with mean pooling",
    "unsup-mean-t0.05": "the same with mean pooling, τ 0.05",
    "st-unsup": "sentence-transformers: mean pooling, scale 20 (τ 0.05)",
    "sup": "**simcse-sup** from raw (preset `mini-sup`)",
    "st-sup": "sentence-transformers: mean pooling, scale 20 (τ 0.05)",
    "unsup-sup": "**simcse-sup** from simcse-unsup",
}


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    # The newest row of an arm and seed counts.
    runs: dict[str, dict[str, dict[str, str]]] = defaultdict(dict)
    with RESULTS.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            runs[row["arm"]][row["seed"]] = row
    print("| encoder | seeds | " + " | ".join(TASKS) + " | average | dev | align. | unif. |")
    print("|---" * (len(TASKS) + 6) + "|")
    for arm, label in ARMS.items():
        rows = runs.get(arm, {}).values()
        if not rows:
            continue
        digits = dict.fromkeys((*TASKS, "average", "dev"), 2) | {"alignment": 3, "uniformity": 3}
        cells = [
            spread([float(row[key]) for row in rows], places) for key, places in digits.items()
        ]
        print(f"| {label} | {len(rows)} | " + " | ".join(cells) + " |")


def spread(values: list[float], digits: int) -> str:
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


if __name__ == "__main__":
    main()
