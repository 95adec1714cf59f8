"""Paraphrase classification by one threshold on the cosine, from a file of labelled pairs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simcse_kit.errors import DataError
from simcse_kit.evaluation.embed import Embeddings
from simcse_kit.evaluation.results import TaskScore
from simcse_kit.evaluation.tasks.rows import named_rows
from simcse_kit.metrics.correlation import paired_cosine

__all__ = ["ParaphraseTask", "average_precision", "best_thresholds", "load_paraphrase"]

_COLUMNS = ("label", "sentence1", "sentence2")


@dataclass(frozen=True)
class ParaphraseTask:
    """Labelled pairs: ``splits`` maps "dev" (maybe absent) and "test" to (first, second, label)."""

    name: str
    splits: dict[str, list[tuple[str, str, bool]]]

    def sentences(self) -> list[str]:
        """Both sides of all pairs."""
        return [text for rows in self.splits.values() for a, b, _ in rows for text in (a, b)]

    def score(self, vectors: Embeddings, *, progress: bool = False) -> TaskScore:  # noqa: ARG002
        """Average precision on test; F1 and accuracy at the thresholds that are best on dev."""
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
        where = "chosen on the dev rows" if source == "dev" else "the best on the test rows itself"
        protocol = f"cosine, average precision x100; F1 and accuracy x100 at a threshold {where}"
        return TaskScore(self.name, "paraphrase", "average_precision", metrics, counts, protocol)

    def _side(self, split: str, vectors: Embeddings) -> tuple[np.ndarray, np.ndarray]:
        first, second, label = zip(*self.splits[split], strict=True)
        return paired_cosine(vectors(first), vectors(second)), np.array(label, dtype=bool)


def average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """Sum over distinct scores, from high to low, of (step in recall) x precision.

    Args:
        scores: (n,) numbers; equal ones enter together.
        labels: (n,) bools, at least one of them true.
    """
    hits, taken, positives = _curve(scores, labels)[1:]
    steps = np.diff(hits, prepend=0.0)
    return float(np.sum(steps / positives * hits / taken))


def best_thresholds(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """The scores at and above which calling a pair a paraphrase is best by F1, and by accuracy.

    Of equally good thresholds the highest is taken.
    """
    values, hits, taken, positives = _curve(scores, labels)
    f1 = 2 * hits / (taken + positives)
    right = hits + (len(scores) - positives) - (taken - hits)
    return float(values[np.argmax(f1)]), float(values[np.argmax(right)])


def _curve(
    scores: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Distinct scores downwards; true ones and all at or above each; the number of true ones."""
    order = np.argsort(-scores, kind="stable")
    ranked, truth = scores[order], labels[order].astype(np.float64)
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    return ranked[last], np.cumsum(truth)[last], last + 1.0, float(truth.sum())


def load_paraphrase(path: str | Path) -> ParaphraseTask:
    """Read a .tsv, .csv or .jsonl file with label (0 or 1), sentence1, sentence2, maybe split.

    Rows of a ``split`` other than dev and test are left out; without that column all are test.

    Raises:
        DataError: unreadable file, a bad row (with its line), or a split without both labels.
    """
    path = Path(path)
    splits: dict[str, list[tuple[str, str, bool]]] = {}
    for line, row in named_rows(path, _COLUMNS):
        label, first, second = (row[column] for column in _COLUMNS)
        if label not in ("0", "1"):
            raise DataError(f"label {label!r} is not 0 or 1", file=path, line=line)
        split = row.get("split", "test")
        if split in ("dev", "test"):
            splits.setdefault(split, []).append((first, second, label == "1"))
    if "test" not in splits:
        raise DataError("has no test rows; give test rows, or no column split", file=path)
    for split, rows in splits.items():
        if len({label for *_, label in rows}) < 2:
            raise DataError(
                f"all {len(rows)} {split} rows have one label; it takes both 0 and 1", file=path
            )
    return ParaphraseTask(path.stem, splits)
