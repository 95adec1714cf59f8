"""Draw the two pictures of README.md from the stored results.

python evaluation/pictures.py      # writes quality.svg and speed.svg
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams |= {"svg.hashsalt": "pictures", "svg.fonttype": "none", "font.size": 9}
from matplotlib import pyplot as plt  # noqa: E402 - after the backend is chosen

HERE = Path(__file__).resolve().parent
OURS, PEER, ORIGINAL, START = "#1f6fb4", "#9aa3ad", "#d9a066", "#444444"
ARMS = (
    ("raw-first_last_mean", "mini, untrained", START),
    ("st-unsup", "unsupervised, sentence-transformers", PEER),
    ("unsup", "unsupervised, simcse_kit", OURS),
    ("st-sup", "supervised, sentence-transformers", PEER),
    ("sup", "supervised, simcse_kit", OURS),
    ("unsup-sup", "unsupervised, then supervised, simcse_kit", OURS),
)
TASKS = (
    ("encode-minilm-varied", "encode, MiniLM, varied sentences"),
    ("encode-minilm-sts", "encode, MiniLM, STS sentences"),
    ("encode-minilm-long", "encode, MiniLM, long texts"),
    ("encode-bertbase-varied", "encode, BERT-base shape"),
    ("precision-minilm", "encode, MiniLM, int8 export (peer: fp32)"),
    ("sts-minilm", "score the seven STS tasks"),
    ("train-minilm-64", "train, MiniLM, 64 x 32 tokens"),
    ("train-minilm-triplets", "train, MiniLM, triplets"),
    ("train-minilm-128", "train, MiniLM, long texts"),
    ("train-bertbase-64", "train, BERT-base shape"),
)
PEERS = (
    (("st-default", "st-trainer"), "over sentence-transformers", PEER),
    (("original-eager",), "over the original SimCSE step", ORIGINAL),
)


def draw_quality(path: Path) -> None:
    """Plot the STS average of every seed, by arm."""
    with (HERE / "quality/mini-simcse/results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    figure, axes = plt.subplots(figsize=(7.5, 2.8), layout="constrained")
    for place, (arm, _, colour) in enumerate(ARMS):
        averages = [float(row["average"]) for row in rows if row["arm"] == arm]
        mean = statistics.fmean(averages)
        axes.plot([mean, mean], [place - 0.25, place + 0.25], color=colour, lw=2)
        axes.plot(averages, [place] * len(averages), "o", color=colour, ms=5, alpha=0.7, mew=0)
        spread = f" ± {statistics.stdev(averages):.2f}" if len(averages) > 1 else ""
        axes.text(max(averages) + 0.25, place, f"{mean:.2f}{spread}", va="center")
    axes.set_yticks(range(len(ARMS)), [label for _, label, _ in ARMS])
    axes.set_xlim(56, 70)
    axes.set_xlabel("average of seven STS tests, Spearman x 100 (dots: seeds, line: mean)")
    save(figure, axes, path)


def draw_speed(path: Path) -> None:
    """Plot the speed of simcse_kit over its peers, by task."""
    tasks = json.loads((HERE / "speed/results.json").read_text(encoding="utf-8"))["tasks"]
    figure, axes = plt.subplots(figsize=(7.5, 4.6), layout="constrained")
    place, ticks = 0.0, []
    for key, title in TASKS:
        variants = tasks[key]["variants"]
        start = place
        for names, label, colour in PEERS:
            for name in names:
                if name in variants:
                    ratio = variants[name]["ours_is_faster"]["wall"]["median"]
                    axes.barh(place, ratio, color=colour, height=0.9, label=label)
                    axes.text(ratio + 0.05, place, f"{ratio:.2f}", va="center", fontsize=8)
                    place += 1
        ticks.append(((start + place - 1) / 2, title))
        place += 0.7
    axes.axvline(1, color=START, lw=0.8, ls=":")
    axes.set_yticks([at for at, _ in ticks], [title for _, title in ticks])
    axes.set_xlabel("speed of simcse_kit as a multiple of the peer's (medians, 2 threads)")
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    axes.legend(handles.values(), handles.keys(), frameon=False, loc="upper right")
    axes.set_xlim(0, 8.9)
    save(figure, axes, path)


def save(figure: Any, axes: Any, path: Path) -> None:
    axes.invert_yaxis()
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    draw_quality(HERE / "quality.svg")
    draw_speed(HERE / "speed.svg")


if __name__ == "__main__":
    main()
