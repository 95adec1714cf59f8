"""The ratios as bars, grouped by task, and the loss curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams |= {"svg.hashsalt": "bench", "svg.fonttype": "none"}
from matplotlib import pyplot as plt  # noqa: E402 - after the backend is chosen

from simcse_kit.utils.files import replacement  # noqa: E402

OURS, PEER = "#1f6fb4", "#b9bec5"


def write_ratios(document: dict[str, Any], path: Path) -> None:
    """Speed of every variant over its task's baseline; thin lines are the lowest and highest ratio
    of any one round."""
    from harness.report import label

    rows: list[tuple[float, str, dict[str, float], bool]] = []
    heads: list[tuple[float, str]] = []
    at = 0.0
    for task in document["tasks"].values():
        found = [
            (name, variant["speed_over_baseline"]["wall"])
            for name, variant in task["variants"].items()
            if "speed_over_baseline" in variant
        ]
        # A lazy import is hundreds of times as fast, and would leave no room for the other bars.
        if task["group"] in ("Loss curves", "Start-up") or len(found) < 2:
            continue
        heads.append((at, f"{task['group']}: {task['title']}"))
        for name, ratio in found:
            at += 1
            rows.append((at, label(name).replace("**", ""), ratio, name.startswith("ours")))
        at += 2
    if not rows:
        return
    figure, axes = plt.subplots(figsize=(9, 0.6 + 0.24 * at), layout="constrained")
    for place, _, ratio, ours in rows:
        axes.barh(place, ratio["median"], color=OURS if ours else PEER, height=0.8)
        axes.plot([ratio["min"], ratio["max"]], [place, place], color="#333333", lw=1)
        end = max(ratio["median"], ratio["max"])
        axes.text(end, place, f" {ratio['median']:.2f}", va="center", fontsize=8)
    for place, text in heads:
        axes.text(0, place, text, va="center", fontsize=9, fontweight="bold")
    axes.axvline(1, color="#333333", lw=0.8, ls=":")
    axes.set_yticks([row[0] for row in rows], [row[1] for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_ylim(at - 1, -1)
    axes.margins(x=0.12)
    axes.set_xlabel("speed, in multiples of the variant at 1 (median; line: lowest, highest round)")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    _save(figure, path)


def write_curves(document: dict[str, Any], path: Path) -> None:
    """The loss of every seed, ours and the original's, one panel a task."""
    tasks = [task for task in document["tasks"].values() if "curves" in task]
    if not tasks:
        return
    figure, panels = plt.subplots(
        1, len(tasks), figsize=(4.5 * len(tasks), 3), layout="constrained", squeeze=False
    )
    for axes, task in zip(panels[0], tasks, strict=True):
        for side, colour, name in (("original", PEER, "original"), ("ours", OURS, "simcse_kit")):
            for number, losses in enumerate(task["curves"][side]):
                steps = range(1, len(losses) + 1)
                axes.plot(steps, losses, color=colour, lw=1, label=None if number else name)
        axes.set_title(task["title"], fontsize=10)
        axes.set_xlabel("step")
        axes.set_ylabel("loss")
        axes.legend(frameon=False)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    with replacement(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})
    plt.close(figure)
