"""Table of all tasks."""

from __future__ import annotations

from typing import Any

from harness.encoding import fp32, low_precision
from harness.other import encode_one, import_time, scoring
from harness.task import Task
from harness.training import TrainingSetting, curves, training

_ENCODE, _TRAIN = "Encoding, fp32", "Training step"
_UNSUPERVISED = TrainingSetting("minilm", 64, 32)
_BERT_BASE = TrainingSetting("bertbase", 64, 32, without=("ours-mean-pooling", "original-sdpa"))
_SUPERVISED = TrainingSetting("minilm", 64, 32, rows="triplets")


def _encoding(title: str, *what: Any, quick: bool = False) -> Task:
    return Task(_ENCODE, title, "st-default", "ours", fp32(*what), quick)


def _step(title: str, setting: TrainingSetting, quick: bool = False) -> Task:
    return Task(_TRAIN, title, "original-eager", "ours", training(setting), quick)


TASKS: dict[str, Task] = {
    "encode-minilm-varied": _encoding("MiniLM, varied sentences", "minilm", "varied", 2000),
    "encode-minilm-sts": _encoding("MiniLM, STS sentences", "minilm", "sts", 2000),
    "encode-minilm-long": _encoding("MiniLM, long tail to 256 tokens", "minilm", "long", 1000),
    "encode-mini-varied": _encoding("mini, varied sentences", "mini", "varied", 4000, quick=True),
    "encode-bertbase-varied": _encoding(
        "BERT-base shape, varied sentences", "bertbase", "varied", 300
    ),
    "precision-minilm": Task(
        "Encoding, other precisions",
        "MiniLM, varied sentences",
        "st-default",
        ("ours-int8", "ours-openvino-int8"),
        low_precision,
        in_quick=True,
    ),
    "train-minilm-64": _step("MiniLM, 64 x 32 tokens", _UNSUPERVISED, quick=True),
    "train-minilm-128": _step(
        "MiniLM, 128, long tail to 128 tokens", TrainingSetting("minilm", 128, 128, rows="long")
    ),
    "train-bertbase-64": _step("BERT-base shape, 64 x 32 tokens", _BERT_BASE),
    "train-minilm-triplets": _step("MiniLM, 64 triplets x 32 tokens", _SUPERVISED),
    "curves-unsup": Task(
        "Loss curves", "MiniLM, sentences", "original", "ours", curves(_UNSUPERVISED), True
    ),
    "curves-sup": Task("Loss curves", "MiniLM, triplets", "original", "ours", curves(_SUPERVISED)),
    "sts-minilm": Task("STS tasks", "seven tasks, MiniLM", "st-default", "ours", scoring, True),
    "startup-import": Task("Start-up", "import", "st", "ours", import_time, True),
    "startup-encode": Task("Start-up", "one sentence with mini", "st", "ours", encode_one, True),
}
