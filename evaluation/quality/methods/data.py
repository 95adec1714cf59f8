"""Write triplets with short premises, and labelled pairs made from them.

    python evaluation/quality/methods/data.py path/to/triplets.csv build/methods

Writes triplets.csv (premises of at most 20 words) and labelled.csv, the input of
margin-contrastive: premise and entailment with label 0, premise and contradiction with label 1.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

MOST_WORDS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="triplets with sent0, sent1 and hard_neg")
    parser.add_argument("folder", type=Path, help="folder for the two files")
    options = parser.parse_args()
    with options.source.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if len(row["sent0"].split()) <= MOST_WORDS]
    with (options.folder / "triplets.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sent0", "sent1", "hard_neg"])
        writer.writerows([row["sent0"], row["sent1"], row["hard_neg"]] for row in rows)
    with (options.folder / "labelled.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sentence1", "sentence2", "label"])
        for row in rows:
            writer.writerow([row["sent0"], row["sent1"], 0])
            writer.writerow([row["sent0"], row["hard_neg"], 1])


if __name__ == "__main__":
    main()
