"""The table of README.md, from results/*.json."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from pathlib import Path

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
    runs = defaultdict(list)
    for path in sorted((Path(__file__).parent / "results").glob("*.json")):
        arm, _, seed = path.stem.rpartition("-")
        key = arm if seed.isdigit() else path.stem
        runs[key].append(json.loads(path.read_text(encoding="utf-8")))
    print("| encoder | seeds | " + " | ".join(TASKS) + " | average | dev | align. | unif. |")
    print("|---" * (len(TASKS) + 6) + "|")
    for key, label in ARMS.items():
        found = runs.get(key, [])
        if not found:
            continue
        columns = [[run["tasks"][task]["spearman"] for run in found] for task in TASKS]
        columns += [[run[what] for run in found] for what in ("average", "dev")]
        cells = [spread(column, 2) for column in columns]
        cells += [spread([run[what] for run in found], 3) for what in ("alignment", "uniformity")]
        print(f"| {label} | {len(found)} | " + " | ".join(cells) + " |")


def spread(values: list[float], digits: int) -> str:
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


if __name__ == "__main__":
    main()
