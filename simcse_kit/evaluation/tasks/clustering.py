"""Clustering tasks: V-measure of k-means against labels, over several seeds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simcse_kit.errors import DataError
from simcse_kit.evaluation.embed import Embeddings, unit_rows
from simcse_kit.evaluation.results import TaskScore
from simcse_kit.evaluation.tasks.base import require_sklearn
from simcse_kit.evaluation.tasks.files import read_columns

__all__ = ["ClusteringTask", "load_clustering"]

SEEDS = 10


@dataclass(frozen=True)
class ClusteringTask:
    """Texts with at least two different labels."""

    name: str
    texts: list[str]
    labels: list[str]

    def sentences(self) -> list[str]:
        """List the texts."""
        return self.texts

    def score(self, vectors: Embeddings, *, progress: bool = False) -> TaskScore:  # noqa: ARG002
        """Compute mean and standard deviation of the V-measure x100 over seeds.

        k-means (k-means++, one start for each seed) clusters vectors of length 1; k is the number
        of labels. Source: Rosenberg and Hirschberg 2007, "V-Measure", EMNLP-CoNLL.

        Raises:
            MissingExtraError: scikit-learn is not installed.
        """
        require_sklearn(f"the clustering task {self.name}")
        from sklearn.cluster import KMeans
        from sklearn.metrics import v_measure_score

        rows, k = unit_rows(vectors(self.texts)), len(set(self.labels))
        found = [
            100
            * v_measure_score(self.labels, KMeans(k, n_init=1, random_state=seed).fit_predict(rows))
            for seed in range(SEEDS)
        ]
        metrics = {"v_measure": float(np.mean(found)), "sd": float(np.std(found, ddof=1))}
        counts = {"texts": len(self.texts), "labels": k, "seeds": SEEDS}
        protocol = "V-measure x100 of k-means on normalised embeddings, k = number of labels"
        return TaskScore(self.name, "clustering", "v_measure", metrics, counts, protocol)


def load_clustering(path: str | Path) -> ClusteringTask:
    """Read a .tsv, .csv or .jsonl file with the columns text and label.

    Raises:
        DataError: the file cannot be read, a row is bad, or there are fewer than two labels.
    """
    path = Path(path)
    rows = [(row["text"], row["label"]) for _, row in read_columns(path, ("text", "label"))]
    labels = [label for _, label in rows]
    if len(set(labels)) < 2:
        raise DataError(f"{len(set(labels))} different labels; give at least 2", file=path)
    return ClusteringTask(path.stem, [text for text, _ in rows], labels)
