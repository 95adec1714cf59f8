"""A made-up SentEval folder, a bag-of-words encoder, and their counts."""

from __future__ import annotations

import dataclasses
import random
import zlib
from pathlib import Path

import numpy as np
import pytest

from simcse_kit.evaluation.tasks import sts

VOCABULARY = (
    "a the man woman dog cat plays eats runs reads guitar bread park book slowly quickly red old "
    "river tree house bird sings sleeps near under"
)
WORDS = VOCABULARY.split()
PER_FILE = 6


class BagOfWords:
    """Sums one fixed random vector a word; counts its calls."""

    pooling = "bag"

    def __init__(self, dimension: int = 16):
        self.dimension = dimension
        self.calls: list[list[str]] = []

    def vector(self, sentence: str) -> np.ndarray:
        words = [zlib.crc32(word.encode()) for word in sentence.split()]
        rows = [np.random.default_rng(seed).normal(size=self.dimension) for seed in words]
        return np.sum(rows, axis=0)

    def encode(self, sentences: list[str]) -> np.ndarray:
        self.calls.append(list(sentences))
        return np.stack([self.vector(sentence) for sentence in sentences])


def pair(rng: random.Random) -> tuple[str, str, float]:
    """Two sentences, and their word overlap on the scale 1 to 5."""
    first = rng.sample(WORDS, 6)
    kept = rng.randint(0, 6)
    second = first[:kept] + rng.sample(WORDS, 6 - kept)
    overlap = len(set(first) & set(second)) / len(set(first) | set(second))
    return " ".join(first), " ".join(second), round(1 + 4 * overlap, 2)


def write_senteval(root: Path) -> Path:
    """Write all seven tasks, PER_FILE scored pairs a file, into ``root``; returns ``root``."""
    rng = random.Random(0)
    for task in sts.TASKS.values():
        groups = "" if task.kind == "sick" else "STS"
        folder = root / groups / task.folder
        folder.mkdir(parents=True, exist_ok=True)
        for subset in task.subsets:
            rows = [pair(rng) for _ in range(PER_FILE)]
            if task.kind == "semeval":
                write_semeval(folder, subset, rows)
            elif task.kind == "benchmark":
                lines = [
                    f'genre\tfile"x\t2012test\t{i:04d}\t{g:.3f}\t{a}\t{b}'
                    for i, (a, b, g) in enumerate(rows)
                ]
                (folder / f"sts-{subset}.csv").write_text("\n".join(lines) + "\n", "utf-8")
            else:
                end = "\r\n" if subset == "test" else "\n"
                lines = ["pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment"]
                lines += [f"{i}\t{a}\t{b}\t{g}\tNEUTRAL" for i, (a, b, g) in enumerate(rows)]
                name = "test_annotated" if subset == "test" else subset
                path = folder / f"SICK_{name}.txt"
                path.write_bytes((end.join(lines) + end).encode())
    return root


def write_semeval(folder: Path, subset: str, rows: list[tuple[str, str, float]]) -> None:
    """An input and a gold file, with one unscored pair put before the last scored one."""
    inputs = [f"{a}\t{b}" for a, b, _ in rows]
    golds = [f"{g}" for _, _, g in rows]
    inputs.insert(-1, "an unscored\tpair")
    golds.insert(-1, "")
    (folder / f"STS.input.{subset}.txt").write_text("\n".join(inputs) + "\n", "utf-8")
    (folder / f"STS.gs.{subset}.txt").write_text("\n".join(golds) + "\n", "utf-8")


def use_small_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the expected counts those of :func:`write_senteval`."""
    for name, task in sts.TASKS.items():
        small = dataclasses.replace(task, expected=PER_FILE * len(task.subsets))
        monkeypatch.setitem(sts.TASKS, name, small)
