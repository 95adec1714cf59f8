"""Compare the weights after the same batches: our training, and sentence-transformers' CoSENTLoss.

    python evaluation/quality/graded/parity.py --stsb path/to/STSBenchmark --work runs

Trains with dropout 0 and records the batches, and repeats them with ``CoSENTLoss``, torch's AdamW,
clipping and a linear schedule. Prints the largest difference between the weights, and how far the
training moved them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from run import LENGTH, WARMUP, folder_of
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import CoSENTLoss
from torch import Tensor
from transformers import get_linear_schedule_with_warmup

from simcse_kit import train
from simcse_kit.methods.graded import Graded

RATE, BATCH = 2e-5, 16
FIELDS = ("input_ids", "attention_mask", "labels")


def weights_of(model: SentenceTransformer) -> dict[str, Tensor]:
    """Return the weights without those of BERT's pooler, which mean pooling does not use."""
    return {
        name: value.detach() for name, value in model.named_parameters() if "pooler" not in name
    }


def distance(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--start", default="small")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--stsb", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    given = parser.parse_args()
    folder = folder_of(given.start)
    batches: list[dict[str, Tensor]] = []
    forward = Graded.forward

    def record(self: Graded, **fields: Any) -> Any:
        batches.append({key: fields[key].clone() for key in FIELDS})
        return forward(self, **fields)

    Graded.forward = record  # type: ignore[method-assign]
    result = train(
        given.stsb / "sts-train.csv",
        preset="graded",
        model=folder,
        max_steps=given.steps,
        batch_size=BATCH,
        learning_rate=RATE,
        max_length=LENGTH,
        output=given.work / "parity",
        overwrite=True,
        settings={"method.dropout": 0.0, "training.warmup_ratio": WARMUP, "evaluation.held_out": 0},
    )
    theirs = SentenceTransformer(folder, device="cpu")
    for module in theirs.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    loss = CoSENTLoss(theirs)
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=RATE, weight_decay=0.0)
    warmup = round(WARMUP * given.steps)
    schedule = get_linear_schedule_with_warmup(optimizer, warmup, given.steps)
    theirs.train()
    for batch in batches[-given.steps :]:
        ids, mask = batch["input_ids"], batch["attention_mask"]
        pair = [{"input_ids": ids[:, n], "attention_mask": mask[:, n]} for n in (0, 1)]
        loss(pair, batch["labels"]).backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    start = weights_of(SentenceTransformer(folder, device="cpu"))
    ours = weights_of(SentenceTransformer(str(result.output), device="cpu"))
    after = weights_of(theirs)
    print(f"largest difference {distance(ours, after):.1e}, moved by {distance(start, after):.1e}")


if __name__ == "__main__":
    main()
