"""Measure the cost of ``--deterministic``: the same training run with and without it, in turn.

python evaluation/reliability/deterministic.py --json evaluation/reliability/deterministic.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from statistics import median

import torch

from simcse_kit import train
from simcse_kit.config_files import load_config

ROOT = Path(__file__).resolve().parents[2]


def run(model: str, steps: int, *, deterministic: bool) -> tuple[float, bytes]:
    """Train; return the seconds per step, and the bytes of the weights."""
    with tempfile.TemporaryDirectory() as folder:
        table = {
            "model": {"name": model},
            "data": {"train": [str(ROOT / "data/sentences.txt")]},
            "training": {
                "output": f"{folder}/out",
                "max_steps": steps,
                "deterministic": deterministic,
            },
            "evaluation": {"held_out": 0},
        }
        try:
            result = train(load_config(overrides=[table]))
        finally:
            torch.use_deterministic_algorithms(False)
        return result.seconds / result.steps, Path(folder, "out/model.safetensors").read_bytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mini")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    seconds: dict[bool, list[float]] = {False: [], True: []}
    weights = set()
    for number in range(given.rounds + 1):
        # The order alternates; the first round is a warm-up.
        for deterministic in (False, True) if number % 2 else (True, False):
            taken, left = run(given.model, given.steps, deterministic=deterministic)
            weights.add(left)
            if number:
                seconds[deterministic].append(taken)
    ratios = [with_ / without for with_, without in zip(seconds[True], seconds[False], strict=True)]
    result = {
        "model": given.model,
        "steps": given.steps,
        "milliseconds_without": [round(1000 * taken, 1) for taken in seconds[False]],
        "milliseconds_with": [round(1000 * taken, 1) for taken in seconds[True]],
        "ratio_of_medians": round(median(seconds[True]) / median(seconds[False]), 3),
        "ratios": {"least": round(min(ratios), 3), "most": round(max(ratios), 3)},
        "different_weights": len(weights),
    }
    print(json.dumps(result))
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
