"""Random models in the shapes that are measured, and texts for them. Nothing is downloaded."""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass
from pathlib import Path

DATA = Path(__file__).resolve().parents[3] / "data/sentences.txt"
LONGEST = 128  # tokens of a text to which an encoder truncates


@dataclass(frozen=True)
class Shape:
    """The size of a BERT model."""

    label: str
    layers: int
    width: int
    inner: int
    heads: int

    @property
    def weights_per_token(self) -> int:
        """Weights of the linear maps that every token passes."""
        return self.layers * (4 * self.width**2 + 2 * self.width * self.inner)


SHAPES = {
    "bert": Shape("BERT-base", 12, 768, 3072, 12),
    "minilm": Shape("MiniLM", 6, 384, 1536, 12),
    "tiny": Shape("tiny", 2, 32, 64, 2),
}


def model_folder(name: str, work: Path) -> Path:
    """Return a folder with random weights and the tokenizer of ``mini``, created if needed."""
    folder = work / "models" / name
    if folder.is_dir():
        return folder
    import torch
    from transformers import BertConfig, BertModel

    from simcse_kit import SentenceEncoder

    shape, plain = SHAPES[name], work / "models" / f"{name}-plain"
    torch.manual_seed(0)
    config = BertConfig(
        num_hidden_layers=shape.layers,
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_attention_heads=shape.heads,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(plain)
    tokenizer = SentenceEncoder.load("mini", device="cpu").tokenizer
    tokenizer.model_max_length = LONGEST
    tokenizer.save_pretrained(plain)
    SentenceEncoder.load(plain, pooling="mean", device="cpu").save(folder)
    return folder


def sentences(count: int, median: float, spread: float, seed: int = 0) -> list[str]:
    """Return distinct texts of the words of the sample data.

    Args:
        count: number of texts.
        median: median number of words; the numbers are log-normal.
        spread: standard deviation of the logarithm of the number of words.
        seed: seed of the words and of the lengths.
    """
    words = sorted(set(DATA.read_text(encoding="utf-8").split()))
    rng = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        length = round(rng.lognormvariate(math.log(median), spread))
        found[" ".join(rng.choices(words, k=max(3, length)))] = None
    return list(found)


def rows_file(count: int, columns: int, work: Path) -> Path:
    """Write training rows of one text, or of an anchor, a positive and a hard negative."""
    path = work / f"rows-{count}-{columns}.json"
    texts = sentences(count * columns, median=14, spread=0.4)
    rows = [texts[row * columns : (row + 1) * columns] for row in range(count)]
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def mean_tokens(texts: list[str], folder: Path, limit: int) -> float:
    """Return the mean number of tokens of texts that are truncated to ``limit`` tokens."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(limit)
    return sum(len(row.ids) for row in tokenizer.encode_batch(texts)) / len(texts)
