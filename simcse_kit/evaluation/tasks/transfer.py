"""SentEval's transfer tasks: logistic regression on frozen embeddings with scikit-learn.

Source: Conneau and Kiela 2018 (arXiv 1803.05449), SentEval's classifiers with ``usepytorch`` off.
Folds (10, as in published tables), seed, grid, order of rows, features and the rounding before the
choice of C are SentEval's. There are two deviations: the solver is lbfgs with a tolerance of 1e-6
in float64 (SentEval uses scikit-learn's default, which was liblinear and is lbfgs since version
0.22), and accuracies are averaged without rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simcse_kit.evaluation.embed import Embeddings
from simcse_kit.evaluation.results import TaskScore
from simcse_kit.evaluation.tasks.base import require_sklearn
from simcse_kit.evaluation.tasks.transfer_files import SPECS, LabelledTexts
from simcse_kit.utils.progress import progress_bar

__all__ = ["TransferTask", "best_c", "load_transfer"]

SEED = 1111
FOLDS = 10
_COMMON = "logistic regression on frozen embeddings, C by "
_PROTOCOLS = {
    "nested": f"{_COMMON}{FOLDS}-fold cross-validation inside each of {FOLDS} folds; accuracy x100",
    "dev": f"{_COMMON}the dev set; test accuracy x100",
    "train": f"{_COMMON}{FOLDS}-fold cross-validation on train; test accuracy x100",
}


@dataclass(frozen=True)
class TransferTask:
    """One of the seven tasks.

    Attributes:
        name: name of the task.
        splits: labelled texts of "all", or of some of "train", "dev" and "test".
        grid: values of C to choose from.
    """

    name: str
    splits: dict[str, LabelledTexts]
    grid: tuple[float, ...]

    def sentences(self) -> list[str]:
        """List all texts of all splits."""
        return [text for rows in self.splits.values() for row in rows.texts for text in row]

    def score(self, vectors: Embeddings, *, progress: bool = False) -> TaskScore:
        """Compute accuracy x100, ``dev_accuracy``, which C is chosen by, and ``f1`` for MRPC.

        Raises:
            MissingExtraError: scikit-learn is not installed.
        """
        require_sklearn(f"the transfer task {self.name}")
        x = {split: _features(rows, vectors) for split, rows in self.splits.items()}
        y = {split: np.array(rows.labels) for split, rows in self.splits.items()}
        kind = "nested" if "all" in x else "dev" if "dev" in x else "train"
        fits = len(self.grid) * {"nested": FOLDS * FOLDS, "dev": 1, "train": FOLDS}[kind]
        with progress_bar(fits, shown=progress, desc=self.name, unit="fit", leave=False) as bar:
            if kind == "nested":
                metrics = _nested(x["all"], y["all"], self.grid, bar)
            else:
                metrics = _held_out(x, y, self.grid, bar, f1=self.name == "MRPC")
        counts = {split: len(labels) for split, labels in y.items()}
        return TaskScore(self.name, "transfer", "accuracy", metrics, counts, _PROTOCOLS[kind])


def load_transfer(name: str, data: str | Path) -> TransferTask:
    """Load a task of :data:`SPECS` from a folder in the SentEval layout.

    Raises:
        DataError: the data is missing or wrong.
    """
    spec = SPECS[name]
    return TransferTask(name, spec.load(Path(data)), tuple(2.0**power for power in spec.grid))


def _features(rows: LabelledTexts, vectors: Embeddings) -> np.ndarray:
    """Compute (n, d) float64 features of texts, or (n, 2d) |u - v| and u * v of pairs."""
    sides = [vectors(list(side)).astype(np.float64) for side in zip(*rows.texts, strict=True)]
    if len(sides) == 1:
        return sides[0]
    u, v = sides
    return np.concatenate([np.abs(u - v), u * v], axis=1)


def _fit(x: np.ndarray, y: np.ndarray, c: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    # With the default tolerance of 1e-4 lbfgs stops early, and the last digit of the embeddings
    # changes the accuracy: on TREC by 3 of 500 questions.
    return LogisticRegression(C=c, random_state=SEED, tol=1e-6, max_iter=10_000).fit(x, y)


def _folds() -> Any:
    from sklearn.model_selection import StratifiedKFold

    return StratifiedKFold(n_splits=FOLDS, shuffle=True, random_state=SEED)


def best_c(grid: Sequence[float], accuracies: Sequence[float]) -> tuple[float, float]:
    """Return the best C and its accuracy x100 by SentEval's rule.

    Accuracies are rounded to two digits first, and the smallest of equally good values is taken.
    """
    rounded = [round(100 * accuracy, 2) for accuracy in accuracies]
    best = int(np.argmax(rounded))
    return grid[best], rounded[best]


def _choose(x: np.ndarray, y: np.ndarray, grid: tuple[float, ...], bar: Any) -> tuple[float, float]:
    """Return the C with the best mean accuracy over folds, and that accuracy."""
    parts = list(_folds().split(x, y))
    means = []
    for c in grid:
        scores = []
        for inside, outside in parts:
            scores.append(_fit(x[inside], y[inside], c).score(x[outside], y[outside]))
            bar.update()
        means.append(float(np.mean(scores)))
    return best_c(grid, means)


def _nested(x: np.ndarray, y: np.ndarray, grid: tuple[float, ...], bar: Any) -> dict[str, float]:
    chosen, tested = [], []
    for train, test in _folds().split(x, y):
        c, dev = _choose(x[train], y[train], grid, bar)
        chosen.append(dev)
        tested.append(100 * _fit(x[train], y[train], c).score(x[test], y[test]))
    return {"accuracy": float(np.mean(tested)), "dev_accuracy": float(np.mean(chosen))}


def _held_out(
    x: dict[str, np.ndarray],
    y: dict[str, np.ndarray],
    grid: tuple[float, ...],
    bar: Any,
    *,
    f1: bool,
) -> dict[str, float]:
    from sklearn.metrics import f1_score

    if "dev" in x:
        scores = []
        for c in grid:
            scores.append(float(_fit(x["train"], y["train"], c).score(x["dev"], y["dev"])))
            bar.update()
        best, dev = best_c(grid, scores)
    else:
        best, dev = _choose(x["train"], y["train"], grid, bar)
    predicted = _fit(x["train"], y["train"], best).predict(x["test"])
    found = {"accuracy": 100 * float((predicted == y["test"]).mean()), "dev_accuracy": dev}
    if f1:
        found["f1"] = 100 * float(f1_score(y["test"], predicted))
    return {**found, "c": best}
