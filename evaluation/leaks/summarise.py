"""The JSON files of run.sh as two Markdown tables, for README.md."""

from __future__ import annotations

import json
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> None:
    found = {path.stem: json.loads(path.read_text()) for path in sorted(HERE.glob("*.json"))}
    tasks = ["STS12", "STS13", "STS14", "STS15", "STS16", "STSB", "SICKR"]
    print(f"| text | rows | rows that match | {' | '.join(tasks)} |")
    print("|---|---|---|" + "---|" * len(tasks))
    for name, each in found.items():
        cells = []
        for task in tasks:
            leak = each["sets"].get(task)
            cells.append("" if leak is None else f"{leak['touched']} ({leak['in_one_row']})")
        rows = f"{each['rows']:,} | {each['matched_rows']:,}"
        print(f"| {name} | {rows} | {' | '.join(cells)} |")
    for name, each in found.items():
        for model, scores in each.get("scores", {}).items():
            print(f"\n{name}, {model}")
            print(f"| | {' | '.join(scores)} |\n|---|" + "---|" * len(scores))
            for key, digits in (("all", 2), ("clean", 2), ("clean_pairs", 0)):
                cells = [
                    "-" if score[key] is None else f"{score[key]:.{digits}f}"
                    for score in scores.values()
                ]
                print(f"| {key.replace('_', ' ')} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
