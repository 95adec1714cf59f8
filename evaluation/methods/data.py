"""Triplets of short premises, and labelled pairs made of them.

    python evaluation/methods/data.py path/to/triplets.csv build/methods

Writes triplets.csv (premises of at most 20 words) and labelled.csv: premise and entailment with 0,
premise and contradiction with 1, as margin-contrastive reads them.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

MOST_WORDS = 20


def main(source: str, folder: str) -> None:
    with Path(source).open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if len(row["sent0"].split()) <= MOST_WORDS]
    with (Path(folder) / "triplets.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sent0", "sent1", "hard_neg"])
        writer.writerows([row["sent0"], row["sent1"], row["hard_neg"]] for row in rows)
    with (Path(folder) / "labelled.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sentence1", "sentence2", "label"])
        for row in rows:
            writer.writerow([row["sent0"], row["sent1"], 0])
            writer.writerow([row["sent0"], row["hard_neg"], 1])


if __name__ == "__main__":
    main(*sys.argv[1:])
