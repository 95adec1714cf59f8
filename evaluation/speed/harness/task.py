"""A task of the benchmark, and the settings of a run."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.driver import Rotation, Setting, Variant
from harness.environment import load_average
from harness.stats import add_ratios, summary
from harness.texts import Data


@dataclass(frozen=True)
class Bench:
    """Settings of all tasks of a run.

    Attributes:
        setting: settings of the workers.
        data: source of the texts.
        shared: folder in which ``data`` was searched.
        rounds: number of measured rounds of every task.
        scale: factor on the number of sentences.
        quick: whether to use small batches and few steps, for a trial.
    """

    setting: Setting
    data: Data
    shared: Path
    rounds: int
    scale: float = 1.0
    quick: bool = False

    @property
    def work(self) -> Path:
        return self.setting.work

    def count(self, sentences: int) -> int:
        return max(16, round(sentences * self.scale))

    def hand_over(self, name: str, content: Any) -> str:
        """Write input of the workers as JSON, and return the path."""
        path = self.work / name
        path.write_text(json.dumps(content), encoding="utf-8")
        return str(path)


@dataclass(frozen=True)
class Task:
    """A comparison, reported as one table and one group of bars.

    Attributes:
        group: heading of the report.
        title: work and data.
        baseline: variant whose speed is 1.
        ours: our variant for the comparison; of several, the fastest that ran.
        run: function that measures and returns settings and variants.
        in_quick: whether ``--quick`` runs the task by default.
    """

    group: str
    title: str
    baseline: str
    ours: str | tuple[str, ...]
    run: Callable[[Bench, str], dict[str, Any]]
    in_quick: bool = False

    def result(self, bench: Bench, key: str) -> dict[str, Any]:
        before = load_average()
        found = self.run(bench, key)
        variants = found["variants"]
        names = (self.ours,) if isinstance(self.ours, str) else self.ours
        ran = [name for name in names if "not_run" not in variants[name]] or names[:1]
        ours = min(ran, key=lambda name: variants[name].get("wall", {}).get("median", 0))
        add_ratios(variants, self.baseline, ours)
        return {
            "group": self.group,
            "title": self.title,
            "baseline": self.baseline,
            "ours": ours,
            "rounds": bench.rounds,
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "load_average": [before, load_average()],
            **found,
        }


def run_rounds(
    bench: Bench, key: str, variants: list[Variant], rounds: int, warm_up: int = 1
) -> dict[str, Any]:
    """Run all variants and return their results in the form of results.json."""
    with Rotation(variants, bench.setting, key) as rotation:
        rotation.run(rounds, warm_up)
        return {name: summary(record) for name, record in rotation.records.items()}
