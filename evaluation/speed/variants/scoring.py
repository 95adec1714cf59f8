"""STS scoring with ``evaluate`` of this kit, and with the evaluators of sentence-transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.texts import Data

from variants.threads import pin


def _tasks(params: dict[str, Any]) -> dict[str, list[Any]]:
    return Data.find(Path(params["shared"])).sts_tasks(params["tasks"])


def ours(params: dict[str, Any], rounds: Any) -> None:
    """Run ``evaluate`` without the geometry, which sentence-transformers does not compute."""
    from simcse_kit import SentenceEncoder, evaluate

    pin()
    tasks = _tasks(params)
    encoder = SentenceEncoder.load(params["model"])
    rounds.ready(pairs=sum(len(part) for parts in tasks.values() for part in parts))
    while True:
        rounds.wait()
        report = evaluate(encoder, tasks, geometry_on=None)
        scores = {name: round(task.spearman, 4) for name, task in report.tasks.items()}
        rounds.done(scores=scores)


def sentence_transformers(params: dict[str, Any], rounds: Any) -> None:
    """Run one EmbeddingSimilarityEvaluator per task, over all its pairs."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator

    pin()
    evaluators = {}
    options = {"batch_size": params["batch"]} if params.get("batch") else {}
    tasks = _tasks(params)
    for name, parts in tasks.items():
        evaluators[name] = EmbeddingSimilarityEvaluator(
            [text for part in parts for text in part.sentences1],
            [text for part in parts for text in part.sentences2],
            [float(score) for part in parts for score in part.gold],
            write_csv=False,
            **options,
        )
    model = SentenceTransformer(params["model"], device="cpu")
    rounds.ready(pairs=sum(len(part) for parts in tasks.values() for part in parts))
    while True:
        rounds.wait()
        found = {name: evaluator(model) for name, evaluator in evaluators.items()}
        scores = {
            name: round(100 * next(v for k, v in value.items() if k.endswith("spearman_cosine")), 4)
            for name, value in found.items()
        }
        rounds.done(scores=scores)
