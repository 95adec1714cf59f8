"""Compute the transfer scores of SentEval's files with scikit-learn alone.

Usage: python evaluation/quality/transfer/by_hand.py MODEL --data DIR [--tasks MR,CR,...]

Vectors come from sentence-transformers, the files are read here, and folds and grid search are
scikit-learn's GridSearchCV. Two rules come from SentEval: the order of the rows, and the choice of
C by accuracies rounded to two digits, where the smallest C wins among equals.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold

POLARITY = {
    "CR": ("custrev.pos", "custrev.neg"),
    "MPQA": ("mpqa.pos", "mpqa.neg"),
    "MR": ("rt-polarity.pos", "rt-polarity.neg"),
    "SUBJ": ("subj.objective", "subj.subjective"),
}


def folds() -> StratifiedKFold:
    return StratifiedKFold(10, shuffle=True, random_state=1111)


def rounded(results: dict) -> int:
    return int(np.argmax(np.round(100 * results["mean_test_score"], 2)))


def search(exponents: range) -> GridSearchCV:
    grid = {"C": [2.0**power for power in exponents]}
    return GridSearchCV(
        LogisticRegression(random_state=1111, tol=1e-6, max_iter=10_000),
        grid,
        cv=folds(),
        refit=rounded,
    )


def nested(model: SentenceTransformer, folder: Path, files: tuple[str, str]) -> float:
    rows = []
    for name, label in zip(files, (1, 0), strict=True):
        lines = (folder / name).read_bytes().decode("latin-1").split("\n")
        rows += [(" ".join(line.split()) or ".", label, line) for line in lines[:-1]]
    rows.sort(key=lambda row: (len(row[2].split()), row[1]))
    x = model.encode([row[0] for row in rows]).astype(float)
    y = np.array([row[1] for row in rows])
    return float(
        100
        * np.mean(
            [
                search(range(-2, 4)).fit(x[train], y[train]).score(x[test], y[test])
                for train, test in folds().split(x, y)
            ]
        )
    )


def trec(model: SentenceTransformer, folder: Path) -> float:
    sides = []
    for name in ("train_5500.label", "TREC_10.label"):
        lines = (folder / name).read_bytes().decode("latin-1").split("\n")[:-1]
        rows = [line.strip().split(" ", 1) for line in lines]
        kinds = ["ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM"]
        pairs = [(" ".join(text.split()), kinds.index(label.split(":")[0])) for label, text in rows]
        pairs.sort(key=lambda row: (len(row[0].split()), row[1]))
        sides.append(
            (model.encode([p[0] for p in pairs]).astype(float), np.array([p[1] for p in pairs]))
        )
    return float(100 * search(range(-1, 6)).fit(*sides[0]).score(*sides[1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tasks", default="CR,TREC,MPQA")
    arguments = parser.parse_args()
    model = SentenceTransformer(arguments.model)
    found = {}
    for task in arguments.tasks.split(","):
        folder = arguments.data / task
        if task == "TREC":
            found[task] = trec(model, folder)
        else:
            found[task] = nested(model, folder, POLARITY[task])
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
