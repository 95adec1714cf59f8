"""The loss curves of more seeds than ``bench.py`` takes: this kit beside the original's step.

Both start from the same weights and see the same rows in the same order; head and dropout are drawn
anew. With ``--control`` the original's step runs once more with other dropout masks, which shows
what chance alone makes. Usage:

    python evaluation/speed/curve_seeds.py --shared DIR --model minilm --seeds 11:23 > FILE.json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from harness.models import model_folder
from harness.texts import Data
from variants import training
from variants.original import Original

from simcse_kit import train


def ours(params: dict, seed: int) -> list[float]:
    kept = training.Losses()
    transformers.trainer.DEFAULT_CALLBACKS.append(kept)
    train(training._our_config(params, seed, log_every=1), overwrite=True)
    transformers.trainer.DEFAULT_CALLBACKS.remove(kept)
    return kept.values[: params["steps"]]


def original(params: dict, seed: int, dropout: int | None = None) -> list[float]:
    trainer = Original(params, seed)
    if dropout is not None:
        torch.manual_seed(dropout)
    return [trainer.step() for _ in range(params["steps"])]


def difference(ours: list[list[float]], theirs: list[list[float]]) -> dict[str, float]:
    """Of the mean loss of the second half, pair by pair."""
    half = [
        statistics.fmean(a[len(a) // 2 :]) - statistics.fmean(b[len(b) // 2 :])
        for a, b in zip(ours, theirs, strict=True)
    ]
    error = statistics.stdev(half) / len(half) ** 0.5
    return {
        "mean": round(statistics.fmean(half), 5),
        "standard_error": round(error, 5),
        "ours_lower": sum(one < 0 for one in half),
        "seeds": len(half),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--model", choices=["minilm", "mini"], default="minilm")
    parser.add_argument("--seeds", default="11:23", help="FROM:TO, the end left out")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--control", action="store_true")
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
    runs: dict[str, list[list[float]]] = {"ours": [], "original": [], "control": []}
    for seed in range(*map(int, arguments.seeds.split(":"))):
        runs["original"].append(original(params, seed))
        if arguments.control:
            runs["control"].append(original(params, seed, dropout=100_000 + seed))
        runs["ours"].append(ours(params, seed))
        if len(runs["ours"]) > 1:
            print(seed, difference(runs["ours"], runs["original"]), file=sys.stderr, flush=True)
    found = {"ours_minus_original": difference(runs["ours"], runs["original"])}
    if arguments.control:
        found["control_minus_original"] = difference(runs["control"], runs["original"])
    rounded = {k: [[round(x, 5) for x in run] for run in v] for k, v in runs.items() if v}
    print(json.dumps({"settings": params | {"rows": len(rows)}, **found, "losses": rounded}))


if __name__ == "__main__":
    main()
