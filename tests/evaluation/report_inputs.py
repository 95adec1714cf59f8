"""Reports and histories for the tests of the report pages, and a reader of the pages."""

from __future__ import annotations

import math
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np

from simcse_kit.evaluation.results import (
    STANDARD_TASKS,
    Geometry,
    Report,
    SubsetScore,
    TaskResult,
)

VOID = {"meta", "link", "br", "hr", "img", "input"}


def task(name: str, spearman: float, *, pairs: int = 60, seed: int = 0) -> TaskResult:
    rng = np.random.default_rng(seed)
    gold = rng.integers(0, 26, pairs) / 5
    cosines = np.clip(0.2 + gold / 8 + rng.normal(0, 0.1, pairs), -1, 1)
    subsets = {
        "first": SubsetScore(spearman - 1, spearman - 2, pairs // 3),
        "second": SubsetScore(spearman + 1, spearman + 2, pairs - pairs // 3),
    }
    return TaskResult(
        name, spearman, spearman - 0.5, pairs, spearman, spearman + 0.25, subsets, cosines, gold,
        (0.0, 5.0),
    )  # fmt: skip


def geometry(alignment: float = 0.21, uniformity: float = -2.41) -> Geometry:
    return Geometry(alignment, uniformity, 0.31, 0.033, 312.4, 338, 2552, "STSB")


def report(model: str, level: float, **changes: object) -> Report:
    tasks = {
        name: task(name, level + index, seed=index) for index, name in enumerate(STANDARD_TASKS)
    }
    average = float(np.mean([result.spearman for result in tasks.values()]))
    versions = {"torch": "2.7.0", "python": "3.11"}
    full = Report(model, "cls", tasks, average, geometry(), versions, 73.4)
    return replace(full, **changes)  # type: ignore[arg-type]


HISTORY: list[dict[str, float]] = [
    row
    for step in range(10, 501, 10)
    for row in (
        {
            "step": step,
            "epoch": step / 500,
            "loss": 4 * math.exp(-step / 90),
            "ln_batch": math.log(64),
            "learning_rate": 3e-5 * (1 - step / 500),
            "sentences_per_second": 400.0 + step % 7,
        },
        {
            "step": step,
            "dev_spearman": 80 - abs(step - 320) / 40,
            "dev_alignment": 0.1 + step / 5000,
            "dev_uniformity": -1 - step / 400,
        },
    )
    if "loss" in row or step % 80 == 0
]


class Page(HTMLParser):
    """Reads a page strictly: every element must be closed where it was opened."""

    def __init__(self, source: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.cells: list[list[str]] = []
        self._cell = False
        self.feed(source)
        self.close()
        assert self.open == []

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def row(self, *names: str) -> list[str]:
        """The cells of the first table row whose first cell starts with one of the names."""
        return next(row for row in self.cells if row and row[0].startswith(names))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.cells.append([])
        elif tag in ("td", "th"):
            self.cells[-1].append("")
            self._cell = True

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag
        if tag in ("td", "th"):
            self._cell = False

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)
            if self._cell:
                self.cells[-1][-1] = (self.cells[-1][-1] + data).strip()
