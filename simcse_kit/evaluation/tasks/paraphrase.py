"""Paraphrase tasks: classification of labelled pairs by a threshold on the cosine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simcse_kit.errors import DataError
from simcse_kit.evaluation.embed import Embeddings
from simcse_kit.evaluation.results import TaskScore
from simcse_kit.evaluation.tasks.files import read_columns
from simcse_kit.metrics.correlation import paired_cosine

__all__ = ["ParaphraseTask", "average_precision", "best_thresholds", "load_paraphrase"]

_COLUMNS = ("label", "sentence1", "sentence2")


@dataclass(frozen=True)
class ParaphraseTask:
    """Labelled pairs.

    Attributes:
        name: name of the task.
        splits: (first sentence, second sentence, label) rows of "test" and of an optional "dev".
    """

    name: str
    splits: dict[str, list[tuple[str, str, bool]]]

    def sentences(self) -> list[str]:
        """List both sides of all pairs."""
        return [text for rows in self.splits.values() for a, b, _ in rows for text in (a, b)]

    def score(self, vectors: Embeddings, *, progress: bool = False) -> TaskScore:  # noqa: ARG002
        """Compute average precision, and F1 and accuracy at the thresholds that are best on dev.

        Without dev rows the thresholds are the best ones on the test rows.
        """
        cosine, label = self._side("test", vectors)
        source = "dev" if "dev" in self.splits else "test"
        for_f1, for_accuracy = best_thresholds(*self._side(source, vectors))
        guess = cosine >= for_f1
        hits = int((guess & label).sum())
        metrics = {
            "average_precision": 100 * average_precision(cosine, label),
            "f1": 100 * 2 * hits / int(guess.sum() + label.sum()),
            "accuracy": 100 * float(((cosine >= for_accuracy) == label).mean()),
            "f1_threshold": for_f1,
            "accuracy_threshold": for_accuracy,
        }
        counts = {split: len(rows) for split, rows in self.splits.items()}
        where = "chosen on the dev rows" if source == "dev" else "that is the best on the test rows"
        protocol = f"cosine, average precision x100; F1 and accuracy x100 at a threshold {where}"
        return TaskScore(self.name, "paraphrase", "average_precision", metrics, counts, protocol)

    def _side(self, split: str, vectors: Embeddings) -> tuple[np.ndarray, np.ndarray]:
        first, second, label = zip(*self.splits[split], strict=True)
        return paired_cosine(vectors(first), vectors(second)), np.array(label, dtype=bool)


def average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """Compute the sum over distinct scores, from high to low, of (step in recall) x precision.

    Args:
        scores: (n,) numbers; equal scores form one step.
        labels: (n,) bools, at least one of them true.

    Examples:
        >>> round(average_precision(np.array([0.9, 0.8, 0.1]), np.array([True, False, True])), 4)
        0.8333
    """
    hits, taken, positives = _curve(scores, labels)[1:]
    steps = np.diff(hits, prepend=0.0)
    return float(np.sum(steps / positives * hits / taken))


def best_thresholds(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Find the thresholds with the best F1 and the best accuracy.

    A pair with a score at or above the threshold counts as a paraphrase. The highest of equally
    good thresholds is returned.
    """
    values, hits, taken, positives = _curve(scores, labels)
    f1 = 2 * hits / (taken + positives)
    right = hits + (len(scores) - positives) - (taken - hits)
    return float(values[np.argmax(f1)]), float(values[np.argmax(right)])


def _curve(
    scores: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Return distinct scores downwards, numbers of positives and of pairs at or above each, and the
    number of all positives.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, truth = scores[order], labels[order].astype(np.float64)
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    return ranked[last], np.cumsum(truth)[last], last + 1.0, float(truth.sum())


def load_paraphrase(path: str | Path) -> ParaphraseTask:
    """Read a .tsv, .csv or .jsonl file with the columns label (0 or 1), sentence1 and sentence2.

    A column ``split`` is optional: only rows of dev and test are used. Without it all are test.

    Raises:
        DataError: the file cannot be read, a row is bad, or a split has only one label.
    """
    path = Path(path)
    splits: dict[str, list[tuple[str, str, bool]]] = {}
    for line, row in read_columns(path, _COLUMNS):
        label, first, second = (row[column] for column in _COLUMNS)
        if label not in ("0", "1"):
            raise DataError(f"label {label!r} is not 0 or 1", file=path, line=line)
        split = row.get("split", "test")
        if split in ("dev", "test"):
            splits.setdefault(split, []).append((first, second, label == "1"))
    if "test" not in splits:
        raise DataError("has no test rows; add test rows, or remove the column split", file=path)
    for split, rows in splits.items():
        if len({label for *_, label in rows}) < 2:
            raise DataError(
                f"all {len(rows)} {split} rows have the same label; both 0 and 1 are needed",
                file=path,
            )
    return ParaphraseTask(path.stem, splits)
