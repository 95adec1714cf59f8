"""The tasks for training steps, and for the loss curves of whole runs."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from harness.driver import Variant
from harness.models import NAMES, model_folder
from harness.task import Bench, run_rounds
from harness.texts import token_statistics


@dataclass(frozen=True)
class TrainingSetting:
    model: str
    batch: int
    max_length: int
    rows: str = "varied"
    per_round: int = 1
    # Variants left out because all of them together would not fit into memory.
    without: tuple[str, ...] = ()

    def params(self, bench: Bench, steps: int, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the settings to record, and the parameters of every variant."""
        batch = min(self.batch, 16) if bench.quick else self.batch
        wanted, data = steps * batch, bench.data
        if self.rows == "triplets":
            rows = data.triplet_rows(wanted)
            source = f"triplets with one hard negative, {data.name(data.triplets)}"
        elif self.rows == "long":
            rows = [[text] for text in data.long_tailed(wanted, 18, 0.75)]
            source = (
                f"consecutive sentences of {data.name(data.sentences)} joined, log-normal, "
                "median 18 words"
            )
        else:
            rows = [[text] for text in data.varied(wanted)]
            source = f"distinct sentences, evenly from {data.name(data.sentences)}"
        folder = model_folder(self.model, bench.work)
        texts = [text for row in rows for text in row]
        settings = {
            "model": NAMES[self.model],
            "texts": source,
            "rows": len(rows),
            "batch": batch,
            "max_length": self.max_length,
            "tokens": token_statistics(texts, folder, self.max_length),
        }
        params = {
            "model": str(folder),
            "rows": bench.hand_over(f"{name}.json", rows),
            "batch": batch,
            "max_length": self.max_length,
            "steps": steps,
            "per_round": self.per_round,
            "learning_rate": 3e-5,
        }
        return settings, params


def training(setting: TrainingSetting) -> Callable[[Bench, str], dict[str, Any]]:
    def run(bench: Bench, key: str) -> dict[str, Any]:
        # One warm-up round, and one extra step so that no training loop ends.
        steps = (bench.rounds + 1) * setting.per_round + 1
        settings, params = setting.params(bench, steps, key)
        like_st = {"model": {"pooling": "mean"}, "method": {"head": "none"}}
        variants = [
            Variant("ours", "training:ours", params),
            Variant("ours-mean-pooling", "training:ours", {**params, "config": like_st}),
            Variant("original-eager", "original:steps", {**params, "attention": "eager"}),
            Variant("original-sdpa", "original:steps", {**params, "attention": "sdpa"}),
            Variant("st-trainer", "training:sentence_transformers", params),
        ]
        chosen = [variant for variant in variants if variant.name not in setting.without]
        found = run_rounds(bench, key, chosen, bench.rounds)
        settings["steps_per_round"] = setting.per_round
        return {"settings": settings, "variants": found}

    return run


def curves(setting: TrainingSetting) -> Callable[[Bench, str], dict[str, Any]]:
    def run(bench: Bench, key: str) -> dict[str, Any]:
        steps, seeds = (4, 2) if bench.quick else (round(60 * bench.scale), 3)
        settings, params = setting.params(bench, steps, key)
        variants = [
            Variant("ours", "training:our_curve", params),
            Variant("original", "original:curve", {**params, "attention": "sdpa"}),
        ]
        found = run_rounds(bench, key, variants, seeds, warm_up=0)
        settings |= {"steps": steps, "seeds": seeds}
        result = {"settings": settings, "variants": found}
        if all("not_run" not in variant for variant in found.values()):
            result["curves"] = compare_curves(
                *([note["losses"] for note in found[name].pop("round_notes")] for name in found)
            )
        return result

    return run


def compare_curves(ours: list[list[float]], theirs: list[list[float]]) -> dict[str, Any]:
    """Compare two sets of loss curves, one list per seed, with the noise of the seeds.

    Each run counts by the mean loss of its second half. The difference of the means over the seeds
    is compared with twice its standard error.
    """
    halves = [[statistics.fmean(run[len(run) // 2 :]) for run in side] for side in (ours, theirs)]
    means = [statistics.fmean(side) for side in halves]
    error = (sum(statistics.variance(side) / len(side) for side in halves)) ** 0.5
    difference = means[0] - means[1]
    return {
        "ours": [[round(loss, 5) for loss in run] for run in ours],
        "original": [[round(loss, 5) for loss in run] for run in theirs],
        "second_half_means": [round(mean, 5) for mean in means],
        "difference": round(difference, 5),
        "standard_error": round(error, 5),
        "within_noise": abs(difference) <= 2 * error,
    }
