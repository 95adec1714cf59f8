"""Tasks of the measurement: all systems of a task take turns, and the median of each counts."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpu.models import LONGEST, SHAPES, mean_tokens, model_folder, rows_file, sentences
from gpu.pool import NotMeasuredError, Worker
from gpu.systems import BATCHES, System, encoding_systems, training_systems

LENGTH = 32
Results = dict[str, dict[str, Any]]


@dataclass
class Bench:
    """Settings and processes of a run.

    Attributes:
        work: folder for models, texts, outputs and logs.
        device: ``cuda`` or ``cpu``.
        quick: whether everything is tiny, for a trial.
        deadline: time of :func:`time.monotonic` at which measuring stops.
    """

    work: Path
    device: str
    quick: bool
    deadline: float
    workers: dict[str, Worker] = field(default_factory=dict)

    def left(self) -> float:
        """Return the seconds until the deadline."""
        return self.deadline - time.monotonic()

    def worker(self, name: str) -> Worker:
        """Return the process of a system, which lives until :meth:`end`."""
        return self.workers.setdefault(name, Worker(name, self.work, self.device))

    def end(self) -> None:
        """End all processes."""
        for worker in self.workers.values():
            worker.close()
        for worker in self.workers.values():
            worker.end()


def rotate(
    bench: Bench,
    task: str,
    systems: dict[str, System],
    shared: dict[str, Any],
    *,
    rounds: int,
    free: bool = False,
    profiled: tuple[str, ...] = (),
    vectors_of: list[str] | None = None,
) -> Results:
    """Prepare all systems, run them in turn, and return the measurements of each.

    Args:
        bench: settings and processes.
        task: name of the task.
        systems: systems by name.
        shared: parameters of all systems.
        rounds: rounds that count, after one that does not.
        free: whether a system gives its memory back after its turn. Its next turn begins with a
            round that does not count.
        profiled: systems of which a further round is profiled.
        vectors_of: texts whose vectors are returned under ``vectors``.
    """
    found: Results = {name: {"seconds": [], "peak_gb": None} for name in systems}

    def each(action: Callable[[Worker, dict[str, Any]], Any]) -> None:
        for name, result in found.items():
            if not {"not_run", "cut_short"} & result.keys():
                try:
                    action(bench.worker(name), result)
                except NotMeasuredError as error:
                    result["cut_short" if result["seconds"] else "not_run"] = str(error)

    def prepare(worker: Worker, _: dict[str, Any]) -> None:
        target, own = systems[worker.name]
        worker.start(task, target, shared | own | {"device": bench.device})

    def turn(worker: Worker, result: dict[str, Any]) -> None:
        if free:
            worker.ask(bench.left(), "run")
        answer = worker.ask(bench.left(), "run")
        if free:
            worker.ask(bench.left(), "free")
        result["seconds"].append(round(answer["seconds"], 6))
        result["peak_gb"] = answer.get("peak_gb")

    def profile(worker: Worker, result: dict[str, Any]) -> None:
        if worker.name in profiled:
            result["profile"] = worker.ask(bench.left(), "profile")["profile"]

    def vectors(worker: Worker, result: dict[str, Any]) -> None:
        if vectors_of:
            result["vectors"] = worker.ask(bench.left(), "vectors", texts=vectors_of)["vectors"]

    each(prepare)
    each(lambda worker, result: result.update(worker.answer(bench.left())["notes"]))
    each(lambda worker, _: worker.ask(bench.left(), "run"))
    for _ in range(rounds):
        each(turn)
    each(profile)
    each(vectors)
    each(lambda worker, _: worker.ask(bench.left(), "stop"))
    for result in found.values():
        if result["seconds"]:
            result["median"] = statistics.median(result["seconds"])
    return found


def training(shape: str, columns: int, batch: int) -> Callable[[Bench], dict[str, Any]]:
    """Return the task that compares training steps: one text per row, or triplets."""

    def run(bench: Bench) -> dict[str, Any]:
        name, size = ("tiny", 8) if bench.quick else (shape, batch)
        large = size >= 512
        per_round, rounds = (2, 1) if bench.quick else ((3, 3) if large else (12, 3))
        folder = model_folder(name, bench.work)
        rows = rows_file(256 if bench.quick else 4096, columns, bench.work)
        shared = {
            "model": str(folder),
            "rows": str(rows),
            "batch": size,
            "max_length": LENGTH,
            "learning_rate": 1e-5,
            "per_round": per_round,
            "steps": per_round * (2 * rounds + 6),
        }
        systems = training_systems(cuda=bench.device != "cpu")
        task = f"train-{name}-{columns}-{size}"
        own = tuple(name for name in systems if "32" not in name or bench.quick)
        found = rotate(bench, task, systems, shared, rounds=rounds, free=large, profiled=own)
        texts = [text for row in json.loads(rows.read_text()) for text in row]
        views = max(2, columns)
        tokens = size * views * mean_tokens(texts, folder, LENGTH)
        for result in found.values():
            if "median" in result:
                seconds = result["median"] / per_round
                result["steps_per_second"] = round(1 / seconds, 2)
                # Forward and backward, of real tokens; the padded ones are no useful work.
                work = 6 * tokens * SHAPES[name].weights_per_token
                result["tflops"] = round(work / seconds / 1e12, 2)
            _add_idle(result, per_round)
        settings = {"shape": SHAPES[name].label, "batch": size, "columns": columns}
        settings |= {"tokens_per_step": round(tokens), "steps_per_round": per_round}
        return {"settings": settings, "systems": found}

    return run


def encoding(bench: Bench) -> dict[str, Any]:
    """Compare encoding of varied texts, from text to vectors, and the vectors."""
    count = 200 if bench.quick else 12_000
    texts = sentences(count, median=14, spread=0.7)
    found = _encoded(bench, "encode-varied", texts, vectors_of=texts[:500])
    vectors = {name: result.pop("vectors", None) for name, result in found["systems"].items()}
    found["vectors"] = _compared(bench, vectors, texts[:500])
    return found


def short_texts(bench: Bench) -> dict[str, Any]:
    """Measure encoding of short texts, with this toolkit alone."""
    count = 200 if bench.quick else 50_000
    texts = sentences(count, median=6, spread=0.25)
    return _encoded(bench, "encode-short", texts, ("ours-fp32", "ours-bf16", "ours-fp16"))


def _encoded(
    bench: Bench,
    task: str,
    texts: list[str],
    only: tuple[str, ...] = (),
    vectors_of: list[str] | None = None,
) -> dict[str, Any]:
    name = "tiny" if bench.quick else "minilm"
    folder = model_folder(name, bench.work)
    path = bench.work / f"{task}.json"
    path.write_text(json.dumps(texts), encoding="utf-8")
    shared = {"model": str(folder), "texts": str(path), "sizes": BATCHES}
    systems = encoding_systems(cuda=bench.device != "cpu")
    if only:
        systems = {name: system for name, system in systems.items() if name in only}
    found = rotate(
        bench,
        task,
        systems,
        shared,
        rounds=1 if bench.quick else 3,
        profiled=tuple(name for name in systems if name.startswith("ours")),
        vectors_of=vectors_of,
    )
    tokens = mean_tokens(texts, folder, LONGEST) * len(texts)
    for result in found.values():
        if "median" in result:
            result["sentences_per_second"] = round(len(texts) / result["median"])
            work = 2 * tokens * SHAPES[name].weights_per_token
            result["tflops"] = round(work / result["median"] / 1e12, 2)
        _add_idle(result, 1)
    settings = {"shape": SHAPES[name].label, "texts": len(texts), "tokens": round(tokens)}
    return {"settings": settings, "systems": found}


def _add_idle(result: dict[str, Any], per_round: int) -> None:
    """Add the share of a round in which the GPU had no work, and counts per step."""
    profile = result.get("profile")
    if profile is None:
        return
    if not profile["busy_seconds"]:  # no GPU
        result["operators_per_step"] = round(profile["operators"] / per_round, 1)
        return
    if "median" in result:
        result["idle_share"] = round(max(0.0, 1 - profile["busy_seconds"] / result["median"]), 3)
    for key in ("operators", "launches", "copies_to_host", "copies_to_device"):
        result[f"{key}_per_step"] = round(profile[key] / per_round, 1)
    # One wait ends the round and belongs to the measurement.
    result["waits_per_step"] = round(max(0, profile["waits"] - 1) / per_round, 2)


def _compared(bench: Bench, vectors: dict[str, Any], texts: list[str]) -> dict[str, Any]:
    """Compare the vectors of every system with ours on the CPU in fp32."""
    import numpy as np

    from simcse_kit import SentenceEncoder

    folder = model_folder("tiny" if bench.quick else "minilm", bench.work)
    expected = SentenceEncoder.load(folder, device="cpu").encode(texts, normalize=True)
    found = {}
    for name, rows in vectors.items():
        if rows is not None and name.startswith("ours"):
            rows = np.asarray(rows, dtype=np.float32)
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            found[name] = {
                "max_difference": float(f"{np.abs(rows - expected).max():.3g}"),
                "lowest_cosine": round(float((rows * expected).sum(axis=1).min()), 7),
            }
    return found


def call(target: str, seconds: float, **params: Any) -> Callable[[Bench], dict[str, Any]]:
    """Return the task that runs a function of ``gpu.single`` in a process of its own."""

    def run(bench: Bench) -> dict[str, Any]:
        worker = bench.worker("ours-fp32")
        given = params | {"device": bench.device, "quick": bench.quick, "work": str(bench.work)}
        worker.start(target, f"gpu.single:{target}", given)
        worker.answer(min(seconds, bench.left()))
        notes: dict[str, Any] = worker.ask(min(seconds, bench.left()), "run")["notes"]
        worker.ask(bench.left(), "stop")
        return notes

    return run


# In the order of their importance, because the time may not be enough for all.
TASKS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "rate": call("rate", 60),
    "train-bert-64": training("bert", 1, 64),
    "encode-varied": encoding,
    "train-bert-512": training("bert", 1, 512),
    "train-minilm-64": training("minilm", 1, 64),
    "encode-short": short_texts,
    "train-bert-64-hard-negative": training("bert", 3, 64),
    "gradient-cache": call("gradient_cache", 60),
    "info-nce": call("info_nce", 60),
    "train-minilm-512": training("minilm", 1, 512),
    "train-bert-512-hard-negative": training("bert", 3, 512),
    "train-minilm-64-hard-negative": training("minilm", 3, 64),
    "train-minilm-512-hard-negative": training("minilm", 3, 512),
}
QUICK = ("rate", "train-bert-64", "encode-varied", "gradient-cache", "info-nce")
