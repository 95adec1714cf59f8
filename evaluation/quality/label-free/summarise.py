"""Count how often label-free criteria choose the checkpoint that STS-B dev chooses.

python evaluation/quality/label-free/summarise.py                # from results.csv
python evaluation/quality/label-free/summarise.py --runs FOLDER  # write results.csv first
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
from collections import defaultdict
from pathlib import Path

from scipy.stats import spearmanr

RESULTS = Path(__file__).resolve().with_name("results.csv")
SCORE = "dev_spearman"
CRITERIA = ("dev_loss", "dev_alignment_uniformity", "dev_loss_alignment_uniformity")


def write_results(folder: Path) -> None:
    """Write results.csv from the ``metrics.jsonl`` of the runs, whose folders are RATE-SEED."""
    with RESULTS.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["learning_rate", "seed", "step", SCORE, *CRITERIA])
        for path in sorted(folder.glob("*/metrics.jsonl")):
            rate, _, seed = path.parent.name.rpartition("-")
            for line in path.read_text("utf-8").splitlines():
                row = json.loads(line)
                if SCORE in row and row["step"]:
                    writer.writerow(
                        [rate, seed, row["step"], row[SCORE], *(row[c] for c in CRITERIA)]
                    )


def summary() -> dict[str, dict[str, float]]:
    """Return, for each criterion, how well it chooses within a run and between the runs' ends."""
    runs: dict[tuple[str, str], list[dict[str, float]]] = defaultdict(list)
    with RESULTS.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            values = {key: float(row[key]) for key in (SCORE, *CRITERIA)}
            runs[row["learning_rate"], row["seed"]].append(values)
    last = [rows[-1] for rows in runs.values()]
    found = {}
    for key in CRITERIA:
        best = [max(rows, key=lambda row: row[SCORE]) for rows in runs.values()]
        chosen = [min(rows, key=lambda row: row[key]) for rows in runs.values()]
        lost = [a[SCORE] - b[SCORE] for a, b in zip(best, chosen, strict=True)]
        found[key] = {
            "same_checkpoint": sum(a is b for a, b in zip(best, chosen, strict=True)),
            "runs": len(runs),
            "points_lost_mean": statistics.fmean(lost),
            "points_lost_most": max(lost),
            "rank_correlation_in_a_run": statistics.fmean(rank(run, key) for run in runs.values()),
            "rank_correlation_over_runs": rank(last, key),
            "run_chosen": min(last, key=lambda row: row[key])[SCORE],
            "best_run": max(row[SCORE] for row in last),
        }
    return found


def rank(rows: list[dict[str, float]], key: str) -> float:
    """Return the rank correlation of a criterion, lower is better, with the score on STS-B dev."""
    return float(spearmanr([-row[key] for row in rows], [row[SCORE] for row in rows]).statistic)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, help="folder of finished runs")
    options = parser.parse_args()
    if options.runs:
        write_results(options.runs)
    print(json.dumps(summary(), indent=2))


if __name__ == "__main__":
    main()
