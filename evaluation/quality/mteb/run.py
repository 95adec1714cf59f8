"""Compare mteb's scores of the STS files with those of ``simcse eval``.

Needs ``pip install -e ".[mteb]"``. Usage:
    python evaluation/quality/mteb/run.py MODEL --data DIR   (DIR: STS data in the SentEval layout)
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import mteb
from datasets import Dataset
from mteb.abstasks import AbsTaskSTS
from mteb.mocks import mock_tasks

from simcse_kit import SentenceEncoder, evaluate
from simcse_kit.evaluation.mteb import MtebEncoder
from simcse_kit.evaluation.tasks.load import load_tasks

# mteb's task names and ours. The pairs are the same; ours come from files, not from the Hub.
TASKS = {"STS12": "STS12", "STS13": "STS13", "STS16": "STS16", "STSBenchmark": "STSB"}
MOCKS = (
    "MockClassificationTask",
    "MockPairClassificationTask",
    "MockClusteringTask",
    "MockRetrievalTask",
    "MockRerankingTask",
    "MockSummarizationTask",
    "MockBitextMiningTask",
)


def from_files(name: str, ours: str, data: Path) -> AbsTaskSTS:
    """Return mteb's task ``name`` with the pairs of our task ``ours``."""
    task = type(mteb.get_task(name))()
    sets = load_tasks(ours, data)[ours]
    columns = {
        "sentence1": [text for pairs in sets for text in pairs.sentences1],
        "sentence2": [text for pairs in sets for text in pairs.sentences2],
        "score": [float(gold) for pairs in sets for gold in pairs.gold],
    }
    task.dataset = {"test": Dataset.from_dict(columns)}
    task.data_loaded = True
    return task


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True)
    arguments = parser.parse_args()
    encoder = SentenceEncoder.load(arguments.model)
    wrapped = MtebEncoder(encoder, f"simcse_kit/{Path(arguments.model).name}")
    report = evaluate(encoder, list(TASKS.values()), data=arguments.data, geometry_on=None)
    rows = {}
    for name, ours in TASKS.items():
        start = time.perf_counter()
        result = mteb.evaluate(wrapped, from_files(name, ours, arguments.data), cache=None)
        rows[name] = {
            "mteb": 100 * result.task_results[0].get_score(),
            "simcse eval": report.tasks[ours].spearman,
            "seconds in mteb": round(time.perf_counter() - start, 1),
        }
    mocks = {}
    for name in MOCKS:
        found = getattr(mock_tasks, name, None)
        if found is None:
            continue
        task = found()
        task.load_data()
        result = mteb.evaluate(wrapped, task, cache=None)
        mocks[name] = {"type": task.metadata.type, "main": result.task_results[0].get_score()}
    print(json.dumps({"mteb": mteb.__version__, "sts": rows, "other kinds": mocks}, indent=2))


if __name__ == "__main__":
    main()
