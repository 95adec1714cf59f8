"""Small training text and graded pairs out of the tiny encoder's words."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from simcse_kit.config import RunConfig
from simcse_kit.config_files import load_config

WORDS = (
    "a the cat dog sat ran on mat in park man woman is playing guitar music red blue car house "
    "tree river not very big small old new eats reads book child bird sings"
).split()
ROWS = 64


def sentences(count: int = ROWS, seed: int = 0) -> list[str]:
    """Different sentences of 3 to 8 words."""
    rng = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        found[" ".join(rng.sample(WORDS, rng.randint(3, 8)))] = None
    return list(found)


def write_corpus(folder: Path, kind: str = "texts") -> Path:
    """64 rows of a kind: a positive is its anchor backwards and a word more, and of the triplets
    every third row has two hard negatives."""
    texts = sentences(4 * ROWS)
    quarters = [texts[start::4] for start in range(4)]
    if kind == "texts":
        path = folder / "texts.txt"
        path.write_text("\n".join(quarters[0]) + "\n", encoding="utf-8")
        return path
    path = folder / f"{kind}.jsonl"
    lines = []
    for number, (anchor, more, first, second) in enumerate(zip(*quarters, strict=True)):
        words = [*anchor.split(), more.split()[0]]
        row: dict[str, Any] = {"anchor": anchor, "positive": " ".join(reversed(words))}
        if kind == "triplets":
            row["negatives"] = [first, second] if number % 3 == 0 else [first]
        lines.append(json.dumps(row) + "\n")
    path.write_text("".join(lines), encoding="utf-8")
    return path


def write_pairs(path: Path, count: int = 24) -> Path:
    """Graded pairs, 0 to 5 by the share of words in common."""
    rng = random.Random(1)
    lines = []
    for first in sentences(count, seed=2):
        words = first.split()
        kept = rng.randint(0, len(words))
        second = [*words[:kept], *rng.sample(WORDS, len(words) - kept)]
        lines.append(f"{5 * kept / len(words):.2f}\t{first}\t{' '.join(second)}\n")
    path.write_text("".join(lines), encoding="utf-8")
    return path


def run_config(model: Path, train: Path, output: Path, *overrides: dict[str, Any]) -> RunConfig:
    """A run of 12 steps of 8 rows, evaluated every 4; later overrides win."""
    base = {
        "model": {"name": str(model), "pooling": "mean"},
        "data": {"train": [str(train)]},
        "training": {
            "output": str(output),
            "max_steps": 12,
            "batch_size": 8,
            "learning_rate": 1e-3,
            "log_every": 5,
        },
        "evaluation": {"every": 4},
    }
    return load_config(overrides=[base, *overrides])


def write_tiny_encoder(folder: Path) -> Path:
    """A random two-layer BERT (32 dimensions, with MLM head) and a word-level tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

    words = (
        "[PAD] [UNK] [CLS] [SEP] [MASK] a the cat dog sat ran on mat in park man woman is playing "
        "guitar music red blue car house tree river not very big small old new eats reads book "
        "child bird sings loudly quietly under over near . , ?"
    ).split()
    vocabulary = {word: index for index, word in enumerate(words)}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=32,
    )
    torch.manual_seed(0)
    model = BertForMaskedLM(
        BertConfig(
            vocab_size=len(words),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=64,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
