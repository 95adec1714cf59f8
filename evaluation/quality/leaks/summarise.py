"""Print the tables of README.md from the CSV files of this folder.

python evaluation/quality/leaks/summarise.py
python evaluation/quality/leaks/summarise.py --reports DIR   # first write results.csv from DIR
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TASKS = ("STS12", "STS13", "STS14", "STS15", "STS16", "STSB", "SICKR")
MODELS = ("mini", "all-MiniLM-L6-v2")
SCORES = [f"{model}_{kind}" for model in MODELS for kind in ("all", "clean")]
KINDS = ("exact", "normal", "letters", "near", "contained")
COUNTS = ("pairs", "touched", "whole", "in_one_row")


def write_results(folder: Path) -> None:
    """Write results.csv, a row for each text and test set, from the JSON of ``check-leak``."""
    with (HERE / "results.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        columns = ["text", "rows", "matched_rows", "test", "sentences", *KINDS, *COUNTS, *SCORES]
        writer.writerow(columns)
        for path in sorted(folder.glob("*.json")):
            report = json.loads(path.read_text(encoding="utf-8"))
            for test, leak in report["sets"].items():
                counts = [report["rows"], report["matched_rows"], test, leak["sentences"]]
                counts += [leak["matched"][kind] for kind in KINDS]
                counts += [leak[count] for count in COUNTS]
                writer.writerow([path.stem, *counts, *_scores(report, test)])


def _scores(report: dict[str, Any], test: str) -> list[float | str]:
    scores = report.get("scores", {})
    kinds = ("all", "clean")
    return [round(scores[m][test][k], 4) if m in scores else "" for m in MODELS for k in kinds]


def read(name: str) -> list[dict[str, str]]:
    with (HERE / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def print_training_files() -> None:
    rows = read("results.csv")
    print(f"| text | rows | matching rows | {' | '.join(TASKS)} |")
    print("|---|---|---|" + "---|" * len(TASKS))
    for text in dict.fromkeys(row["text"] for row in rows):
        of_text = {row["test"]: row for row in rows if row["text"] == text}
        first = next(iter(of_text.values()))
        cells = [
            f"{of_text[task]['touched']} ({of_text[task]['in_one_row']})" if task in of_text else ""
            for task in TASKS
        ]
        counts = f"{int(first['rows']):,} | {int(first['matched_rows']):,}"
        print(f"| {text} | {counts} | {' | '.join(cells)} |")
    for text in dict.fromkeys(row["text"] for row in rows if row[SCORES[0]]):
        scored = [row for row in rows if row["text"] == text]
        print(f"\n{text}\n| | {' | '.join(row['test'] for row in scored)} |")
        print("|---|" + "---|" * len(scored))
        for column in SCORES:
            cells = [f"{float(row[column]):.2f}" if row[column] else "-" for row in scored]
            print(f"| {column.replace('_', ', ')} | {' | '.join(cells)} |")
        clean = [str(int(row["pairs"]) - int(row["touched"])) for row in scored]
        print(f"| clean pairs | {' | '.join(clean)} |")


def print_recall() -> None:
    before = {row["change"]: row for row in read("recall-before.csv")}
    rows = read("recall.csv")
    print("\n| change | texts | before | now | kinds | at 0.6 | word pairs | contained | edits |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        name = row["change"]
        brute = [row[key] for key in ("word_pairs_0.8", "contained_0.9", "edits_0.9")]
        kinds = ", ".join(kind for kind in KINDS if row[kind] and float(row[kind]) >= 1)
        found = [before[name]["found_0.8"], row["found_0.8"], kinds, row["found_0.6"], *brute]
        cells = [f"{float(cell):.1f}" if cell[:1].isdigit() else cell for cell in found]
        print(f"| {name} | {int(row['texts']):,} | {' | '.join(cells)} |")
    keys = ("near_pairs", "near_pairs_missed", "near_pairs_too_many")
    total, missed, more = (sum(int(row[key] or 0) for row in rows) for key in keys)
    print(f"\nnear pairs by brute force: {total:,}; missed: {missed}; below the threshold: {more}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reports", type=Path, help="folder of the JSON files of run.sh")
    options = parser.parse_args()
    if options.reports:
        write_results(options.reports)
    print_training_files()
    print_recall()


if __name__ == "__main__":
    main()
