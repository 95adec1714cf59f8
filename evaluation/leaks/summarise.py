"""The JSON files of run.sh and of recall/ as Markdown tables, for README.md."""

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


def recall() -> None:
    """The table of what is found, by kind of change."""
    before, after = (
        json.loads((HERE / "recall" / f"{name}.json").read_text()) for name in ("before", "after")
    )
    print("\n| change | texts | before | now | kinds | at 0.6 | word pairs | contained | edits |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, row in after["changes"].items():
        found = row["found"]
        earlier = before["changes"][name]["found"]["0.8"]
        kinds = ", ".join(kind for kind, share in row["kinds"].items() if share >= 1)
        exact = " | ".join(f"{share:.1f}" for share in row["brute_force"].values())
        print(
            f"| {name} | {row['texts']:,} | {earlier:.1f} | {found['0.8']:.1f} | {kinds} "
            f"| {found['0.6']:.1f} | {exact} |"
        )
    pairs = [row["near_pairs"] for row in after["changes"].values()]
    total, missed, more = (sum(each[key] for each in pairs) for key in pairs[0])
    print(f"\nnear pairs by brute force {total:,}, missed {missed}, found below {more}")
    print("false matches:", after["false"], "before:", before["false"])


if __name__ == "__main__":
    main()
    recall()
