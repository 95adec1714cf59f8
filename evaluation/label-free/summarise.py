"""How often label-free criteria choose what STS-B dev chooses.

Usage: python evaluation/label-free/summarise.py FOLDER_OF_RUNS results.json
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

from scipy.stats import spearmanr

SCORE = "dev_spearman"
CRITERIA = ("dev_loss", "dev_alignment_uniformity", "dev_loss_alignment_uniformity")


def evaluations(path: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
    return [row for row in rows if SCORE in row and row["step"]]


def main() -> None:
    runs = {
        path.parent.name: evaluations(path) for path in Path(sys.argv[1]).glob("*/metrics.jsonl")
    }
    most = max(map(len, runs.values()))
    runs = {name: rows for name, rows in sorted(runs.items()) if len(rows) == most}
    found = {}
    for key in CRITERIA:
        best = [max(rows, key=lambda row: row[SCORE]) for rows in runs.values()]
        chosen = [min(rows, key=lambda row: row[key]) for rows in runs.values()]
        lost = [a[SCORE] - b[SCORE] for a, b in zip(best, chosen, strict=True)]
        last = [rows[-1] for rows in runs.values()]
        found[key] = {
            "same_checkpoint": sum(a is b for a, b in zip(best, chosen, strict=True)),
            "runs": len(runs),
            "points_lost_mean": statistics.fmean(lost),
            "points_lost_most": max(lost),
            "rank_correlation_in_a_run": statistics.fmean(
                spearmanr([-row[key] for row in rows], [row[SCORE] for row in rows]).statistic
                for rows in runs.values()
            ),
            "rank_correlation_over_runs": spearmanr(
                [-row[key] for row in last], [row[SCORE] for row in last]
            ).statistic,
            "run_chosen": min(last, key=lambda row: row[key])[SCORE],
            "best_run": max(row[SCORE] for row in last),
        }
    kept = {
        name: [{key: row[key] for key in ("step", SCORE, *CRITERIA)} for row in rows]
        for name, rows in runs.items()
    }
    document = {"criteria": found, "evaluations": kept}
    Path(sys.argv[2]).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
