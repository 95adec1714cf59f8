"""Measure how often small and another model find the other half of a pair.

Usage: python evaluation/quality/small/retrieval.py MODEL --pairs DIR > retrieval.json

Of each file of pairs (csv: sent0, sent1), the first column has the queries and the second the
documents. Every document is a candidate for every query.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

from simcse_kit import SentenceEncoder, evaluate
from simcse_kit.evaluation.tasks.retrieval import RetrievalTask

FILES = (
    "qa_trecqa_wikiqa",
    "medical_questions",
    "parade_definitions",
    "climate_fever_supports",
    "flickr8k_captions",
)
MOST = 5000


def task(path: Path) -> RetrievalTask:
    with path.open(encoding="utf-8") as file:
        rows = [(row["sent0"], row["sent1"]) for row in csv.DictReader(file)][:MOST]
    ids: dict[str, str] = {}  # document id by text; a text is one document
    grades: dict[str, dict[str, int]] = {}
    for query, document in rows:
        key = ids.setdefault(document, f"d{len(ids)}")
        grades.setdefault(query, {})[key] = 1
    queries = {f"q{number}": query for number, query in enumerate(grades)}
    return RetrievalTask(
        path.stem,
        {key: text for text, key in ids.items()},
        queries,
        {key: grades[query] for key, query in queries.items()},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder of the other model")
    parser.add_argument("--pairs", type=Path, required=True, help="folder with the files of pairs")
    arguments = parser.parse_args()
    tasks = {name: task(arguments.pairs / f"{name}.csv") for name in FILES}
    found = {}
    for name in ("small", arguments.model):
        report = evaluate(SentenceEncoder.load(name), tasks)
        found[Path(name).name] = {
            key: {**score.metrics, **score.counts} for key, score in report.beyond_sts.items()
        }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
