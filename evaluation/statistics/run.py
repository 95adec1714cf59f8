"""How long the bootstrap takes, and how often its intervals and tests hold.

    python evaluation/statistics/run.py

Writes results.json beside this file; about six minutes on two cores. `--only-tests` measures the
paired test alone and keeps the other results.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np

from simcse_kit.evaluation.statistics.bootstrap import Bootstrap, Sample
from simcse_kit.evaluation.statistics.distribution import Distribution
from simcse_kit.metrics.correlation import spearman

# Pairs of the seven tasks, and of their subsets.
TASKS = {
    "STS12": (750, 750, 459, 750, 399),
    "STS13": (189, 750, 561),
    "STS14": (450, 300, 750, 750, 750, 750),
    "STS15": (375, 750, 375, 750, 750),
    "STS16": (254, 249, 230, 244, 209),
    "STSB": (1379,),
    "SICKR": (4927,),
}
TRIALS, RESAMPLES = 1000, 1000
COMPARISONS = 2000


def drawn(
    rng: np.random.Generator, pairs: int, rho: float, *, models: int = 1, steps: int | None = None
) -> Sample:
    """Bivariate normal; gold rounded to so many steps, as annotators grade."""
    gold = rng.standard_normal(pairs)
    predicted = rho * gold + math.sqrt(1 - rho**2) * rng.standard_normal((models, pairs))
    if steps is not None:
        gold = np.clip(np.round((gold + 2) / 4 * steps), 0, steps)
    return Sample(gold, predicted, (pairs,))


def timing() -> dict[str, float]:
    rng = np.random.default_rng(0)
    samples = {}
    for name, strata in TASKS.items():
        sample = drawn(rng, sum(strata), 0.8, models=2, steps=25)
        samples[name] = Sample(sample.gold, sample.predicted, strata)
    found = {}
    for models in (1, 2):
        some = {
            name: Sample(each.gold, each.predicted[:models], each.strata)
            for name, each in samples.items()
        }
        wall, cpu = time.perf_counter(), time.process_time()
        bootstrap = Bootstrap(some, resamples=10_000)
        for tasks in ([name] for name in some):
            bootstrap.interval(tasks)
            bootstrap.difference(tasks, models - 1)
        bootstrap.interval(list(some))
        bootstrap.difference(list(some), models - 1)
        found[f"seconds, {models} models"] = time.perf_counter() - wall
        found[f"CPU seconds, {models} models"] = time.process_time() - cpu
    return found


def coverage(pairs: int, rho: float, steps: int | None) -> dict[str, object]:
    rng = np.random.default_rng(1)
    big = drawn(np.random.default_rng(2), 2_000_000, rho, steps=steps)
    true = spearman(big.predicted[0], big.gold)
    held = 0
    for trial in range(TRIALS):
        sample = drawn(rng, pairs, rho, steps=steps)
        bootstrap = Bootstrap({"a": sample}, resamples=RESAMPLES, seed=trial, threads=1)
        interval = bootstrap.interval(["a"])
        held += interval.low <= true <= interval.high
    return {"pairs": pairs, "rho": rho, "steps of gold": steps, "true": true, "held": held / TRIALS}


def null_comparisons(pairs: int, rho: float, shared: float, steps: int | None) -> dict[str, object]:
    """Two equally good models, whose errors share so much of their variance.

    "before" is the rule up to version 0.1.0: as p the share of resamples on the far side of 0,
    as interval BCa. "BCa" takes both from the BCa interval, "now" both from percentiles.
    """
    rng = np.random.default_rng(3)
    weights = np.array([1.0, -1.0])
    rejected = dict.fromkeys(("before", "BCa", "now"), 0)
    contradictions = dict(rejected)
    for trial in range(COMPARISONS):
        gold = rng.standard_normal(pairs)
        common, own = rng.standard_normal(pairs), rng.standard_normal((2, pairs))
        errors = math.sqrt(shared) * common + math.sqrt(1 - shared) * own
        predicted = rho * gold + math.sqrt(1 - rho**2) * errors
        if steps is not None:
            gold = np.clip(np.round((gold + 2) / 4 * steps), 0, steps)
        sample = Sample(gold, predicted, (pairs,))
        bootstrap = Bootstrap({"a": sample}, resamples=RESAMPLES, seed=trial, threads=1)
        draws = bootstrap.draws["a"] @ weights
        corrected = Distribution.corrected(
            draws, bootstrap.estimates["a"] @ weights, bootstrap._acceleration(["a"], weights)
        )
        tail = min(int(np.sum(draws <= 0)), int(np.sum(draws >= 0)))
        interval, p = bootstrap.difference(["a"], 0, 1)
        for rule, value, (low, high) in (
            ("before", min(1.0, 2 * (tail + 1) / (len(draws) + 1)), corrected.interval(0.95)),
            ("BCa", corrected.p_value(), corrected.interval(0.95)),
            ("now", p, (interval.low, interval.high)),
        ):
            rejected[rule] += value < 0.05
            contradictions[rule] += (value < 0.05) != (low > 0 or high < 0)
    return {
        "pairs": pairs,
        "rho": rho,
        "shared": shared,
        "steps of gold": steps,
        "rejected at 0.05": {rule: count / COMPARISONS for rule, count in rejected.items()},
        "contradictions": {rule: count / COMPARISONS for rule, count in contradictions.items()},
    }


def paired_test() -> dict[str, object]:
    return {
        "null comparisons": [
            null_comparisons(*each)
            for each in (
                (30, 0.8, 0.5, 5), (60, 0.6, 0.0, 25), (120, 0.6, 0.0, None),
                (120, 0.8, 0.6, 25), (400, 0.6, 0.0, 25), (1379, 0.8, 0.6, 25),
            )
        ],
        "comparisons": COMPARISONS,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only-tests", action="store_true")
    target = Path(__file__).parent / "results.json"
    if parser.parse_args().only_tests:
        results = json.loads(target.read_text(encoding="utf-8")) | paired_test()
    else:
        results = {
            "timing, 10,000 resamples of the seven tasks": timing(),
            "coverage of 95 % intervals": [
                coverage(*each)
                for each in (
                    (30, 0.6, None), (60, 0.85, None), (150, 0.6, None), (400, 0.8, None),
                    (400, 0.8, 25), (400, 0.8, 5),
                )
            ],
            "trials": TRIALS,
            "resamples": RESAMPLES,
            **paired_test(),
        }  # fmt: skip
    text = json.dumps(results, indent=1)
    target.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
