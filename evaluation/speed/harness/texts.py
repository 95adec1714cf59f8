"""Texts of the measurements, equal in every run."""

from __future__ import annotations

import csv
import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Data:
    """Source of the texts: the large local sets if they exist, else the sample data."""

    sentences: Path
    triplets: Path
    sts: Path | None
    pairs: Path

    @classmethod
    def find(cls, shared: Path) -> Data:
        sample = ROOT / "data"
        large = cls(
            shared / "train/unsup_sentences.txt",
            shared / "train/nli/triplets.csv",
            shared / "sts/raw",
            sample / "sts.tsv",
        )
        if large.sentences.is_file() and large.triplets.is_file() and (shared / "sts/raw").is_dir():
            return large
        return cls(sample / "sentences.txt", sample / "nli.csv", None, sample / "sts.tsv")

    @property
    def is_sample(self) -> bool:
        return self.sts is None

    def name(self, path: Path) -> str:
        return f"{path.name} (sample data)" if self.is_sample else path.name

    # ------------------------------------------------------------------ single sentences

    def lines(self) -> list[str]:
        text = self.sentences.read_text(encoding="utf-8")
        return [line.strip() for line in text.split("\n") if line.strip()]

    def varied(self, count: int, offset: int = 0) -> list[str]:
        """Return distinct sentences spread evenly over the file, whose sources come in blocks. A
        different ``offset`` gives different sentences."""
        return spread(list(dict.fromkeys(self.lines())), count, offset)

    def long_tailed(self, count: int, median_words: float, sigma: float) -> list[str]:
        """Join consecutive sentences up to a number of words drawn from a log-normal distribution
        (seed 0). The models truncate longer texts."""
        lines, rng = self.lines(), random.Random(0)
        texts = []
        for start in range(count):
            at = start * len(lines) // count
            wanted = median_words * math.exp(rng.gauss(0, sigma))
            words: list[str] = []
            while not words or (len(words) < wanted and len(words) < 400):
                words += lines[at % len(lines)].split()
                at += 1
            texts.append(" ".join(words))
        return texts

    def sts_sentences(self, count: int) -> list[str]:
        """Return distinct sentences of the STS test sets, spread evenly."""
        sets = [part for parts in self.sts_tasks().values() for part in parts]
        distinct = dict.fromkeys(text for one in sets for text in one.sentences())
        return spread(list(distinct), count)

    # ------------------------------------------------------------------ pairs and triplets

    def sts_tasks(self, names: str = "sts") -> dict[str, list[Any]]:
        """Return graded pairs by task; without STS data, those of the sample file."""
        from simcse_kit.evaluation.tasks.load import load_tasks

        if self.sts is None:
            return load_tasks(str(self.pairs))
        return load_tasks(names, self.sts)

    def triplet_rows(self, count: int) -> list[list[str]]:
        """Return triplets in which no text occurs twice. This kit excludes a repeated text from the
        negatives and the original does not, which would change the losses."""
        rows, seen = [], set()
        with self.triplets.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                texts = [row["sent0"], row["sent1"], row["hard_neg"]]
                if len(set(texts) - seen) == 3:
                    seen.update(texts)
                    rows.append(texts)
        return spread(rows, count)


def spread(items: list[Any], count: int, offset: int = 0) -> list[Any]:
    """Return ``count`` of ``items`` at equal distances, or all items if there are fewer."""
    if count >= len(items):
        return list(items)
    return [items[(n * len(items) // count + offset) % len(items)] for n in range(count)]


def token_statistics(texts: list[str], model: Path, limit: int) -> dict[str, float]:
    """Return statistics of the lengths of ``texts`` in tokens, truncated to ``limit``."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(limit)
    lengths = sorted(len(row.ids) for row in tokenizer.encode_batch(texts))
    at = {
        name: lengths[int(q * (len(lengths) - 1))] for name, q in (("median", 0.5), ("p99", 0.99))
    }
    return {"mean": round(sum(lengths) / len(lengths), 1), **at, "max": lengths[-1]}
