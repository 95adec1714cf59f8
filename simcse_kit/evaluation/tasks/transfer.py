"""SentEval's transfer tasks: logistic regression on frozen embeddings.

Source: Conneau and Kiela 2018 (arXiv 1803.05449), SentEval's classifiers with ``usepytorch`` off.
Folds (10, as in published tables), seed, grid, order of rows, features and the rounding before the
choice of C are SentEval's. There are two deviations: the loss of scikit-learn's
``LogisticRegression`` is minimised in float64 until its largest derivative is 1e-7 (SentEval uses
the default solver, which was liblinear and is lbfgs since version 0.22), and accuracies are
averaged without rounding. With scikit-learn's default tolerance, the last digit of the embeddings
changes the accuracy: on TREC by 3 of 500 questions.
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
from simcse_kit.evaluation.tasks.logistic import fit_path
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
        y = self._class_numbers()
        kind = "nested" if "all" in x else "dev" if "dev" in x else "train"
        folds = {"nested": FOLDS * FOLDS + FOLDS, "dev": 1, "train": FOLDS + 1}[kind]
        fits = len(self.grid) * folds
        with progress_bar(fits, shown=progress, desc=self.name, unit="fit", leave=False) as bar:
            if kind == "nested":
                metrics = _nested(x["all"], y["all"], self.grid, bar)
            else:
                metrics = _held_out(x, y, self.grid, bar, f1=self.name == "MRPC")
        counts = {split: len(labels) for split, labels in y.items()}
        return TaskScore(self.name, "transfer", "accuracy", metrics, counts, _PROTOCOLS[kind])

    def _class_numbers(self) -> dict[str, np.ndarray]:
        """Number the classes that occur from 0."""
        labels = {split: np.array(rows.labels) for split, rows in self.splits.items()}
        kinds = np.unique(np.concatenate(list(labels.values())))
        return {split: np.searchsorted(kinds, found) for split, found in labels.items()}


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


def _folds(rows: np.ndarray, y: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the rows inside and outside of each fold of ``rows``."""
    from sklearn.model_selection import StratifiedKFold

    folds = StratifiedKFold(n_splits=FOLDS, shuffle=True, random_state=SEED)
    return [(rows[inside], rows[outside]) for inside, outside in folds.split(rows, y[rows])]


def best_c(grid: Sequence[float], accuracies: Sequence[float]) -> tuple[float, float]:
    """Return the best C and its accuracy x100 by SentEval's rule.

    Accuracies are rounded to two digits first, and the smallest of equally good values is taken.
    """
    rounded = [round(100 * accuracy, 2) for accuracy in accuracies]
    best = int(np.argmax(rounded))
    return grid[best], rounded[best]


def _subsets(n: int, parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return (n, parts) True where a row is in a part."""
    chosen = np.zeros((n, len(parts)), dtype=bool)
    for column, part in enumerate(parts):
        chosen[part, column] = True
    return chosen


def _held_out_accuracies(
    predicted: np.ndarray, y: np.ndarray, parts: Sequence[np.ndarray]
) -> list[float]:
    """Return the accuracy of each column of ``predicted`` on the rows of its part."""
    return [float((predicted[part, column] == y[part]).mean()) for column, part in enumerate(parts)]


def _nested(x: np.ndarray, y: np.ndarray, grid: tuple[float, ...], bar: Any) -> dict[str, float]:
    """Choose C inside each fold, and test it outside."""
    outer = _folds(np.arange(len(y)), y)
    inner = [fold for inside, _ in outer for fold in _folds(inside, y)]
    inside, outside = zip(*inner, *outer, strict=True)
    path = fit_path(x, y, _subsets(len(y), inside), grid, bar.update)
    found = np.array([_held_out_accuracies(fits.predict(x), y, outside) for fits in path])
    # (grid, outer folds, inner folds) and (grid, outer folds)
    validation = found[:, : len(inner)].reshape(len(grid), FOLDS, FOLDS).mean(axis=2)
    test = found[:, len(inner) :]
    chosen = [best_c(grid, list(validation[:, fold])) for fold in range(FOLDS)]
    tested = [100 * test[grid.index(c), fold] for fold, (c, _) in enumerate(chosen)]
    dev = [accuracy for _, accuracy in chosen]
    return {"accuracy": float(np.mean(tested)), "dev_accuracy": float(np.mean(dev))}


def _held_out(
    x: dict[str, np.ndarray],
    y: dict[str, np.ndarray],
    grid: tuple[float, ...],
    bar: Any,
    *,
    f1: bool,
) -> dict[str, float]:
    """Choose C on dev, or by cross-validation on train, and test the fit on all of train."""
    from sklearn.metrics import f1_score

    every = np.arange(len(y["train"]))
    folds = [] if "dev" in x else _folds(every, y["train"])
    subsets = _subsets(len(every), [*(inside for inside, _ in folds), every])
    accuracies, tested = [], []
    for fits in fit_path(x["train"], y["train"], subsets, grid, bar.update):
        if folds:
            outside = [part for _, part in folds]
            scores = _held_out_accuracies(fits.predict(x["train"]), y["train"], outside)
        else:
            scores = [float((fits.predict(x["dev"])[:, -1] == y["dev"]).mean())]
        accuracies.append(float(np.mean(scores)))
        tested.append(fits.predict(x["test"])[:, -1])
    best, dev = best_c(grid, accuracies)
    predicted = tested[grid.index(best)]
    found = {"accuracy": 100 * float((predicted == y["test"]).mean()), "dev_accuracy": dev}
    if f1:
        found["f1"] = 100 * float(f1_score(y["test"], predicted))
    return {**found, "c": best}
