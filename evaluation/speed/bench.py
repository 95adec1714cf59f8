"""Encoding and training speed beside sentence-transformers, interleaved in one process.

    make bench            # or: python evaluation/speed/bench.py --rounds 5 --threads 2

Same model, same sentences, same threads; A B A B …; what counts is the ratio of the medians.
Writes results.json beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def interleaved(variants: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each variant in each round, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, run in variants.items():
            began = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def sentences(count: int) -> tuple[list[str], str]:
    """Varied sentences: the large local set if it is there, else the sample data."""
    for path in (
        ROOT.parent / "shared/data/train/unsup_sentences.txt",
        ROOT / "data/sentences.txt",
    ):
        if path.is_file():
            lines = path.read_text(encoding="utf-8").strip().split("\n")
            return lines[:count], path.name
    raise SystemExit("no sentences found")


def encoding(texts: list[str], rounds: int) -> dict[str, list[float]]:
    from sentence_transformers import SentenceTransformer

    import simcse_kit
    from simcse_kit import SentenceEncoder

    ours = SentenceEncoder.load("mini")
    folder = HERE / ".mini-saved"
    ours.save(folder)
    theirs = SentenceTransformer(str(folder), device="cpu")
    difference = abs(ours.encode(texts[:200]) - theirs.encode(texts[:200])).max()
    assert difference < 1e-5, f"vectors differ by {difference} in {simcse_kit.__version__}"
    return interleaved(
        {
            "simcse_kit": lambda: ours.encode(texts),
            "sentence-transformers": lambda: theirs.encode(texts, show_progress_bar=False),
        },
        rounds,
    )


def training_step(texts: list[str], rounds: int) -> dict[str, list[float]]:
    """One unsupervised step of 64 sentences, 32 tokens: forward, backward, clip, AdamW."""
    import torch
    from sentence_transformers import SentenceTransformer, losses

    from simcse_kit import SentenceEncoder
    from simcse_kit.methods.simcse import SimCSE, SimCSEConfig
    from simcse_kit.text.collate import Collator
    from simcse_kit.text.readers import Example

    batches = [texts[start : start + 64] for start in range(0, 64 * (rounds + 1), 64)]
    encoder = SentenceEncoder.load("mini")
    method = SimCSE(encoder, SimCSEConfig(head="none")).train()
    collate = Collator(
        lambda rows: encoder.tokenize(rows, max_length=32), encoder.tokenizer.pad_token_id, (0,)
    )
    peer = SentenceTransformer(str(HERE / ".mini-saved"), device="cpu").train()
    peer.max_seq_length = 32
    loss = losses.MultipleNegativesRankingLoss(peer)
    optimizers = [torch.optim.AdamW(m.parameters(), lr=1e-5, fused=True) for m in (method, peer)]

    def finish(value: torch.Tensor, model: torch.nn.Module, which: int) -> None:
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizers[which].step()
        optimizers[which].zero_grad()

    ours = iter(batches)
    theirs = iter(batches)

    def our_step() -> None:
        finish(method(**collate([Example((text,)) for text in next(ours)])).loss, method, 0)

    def their_step() -> None:
        batch = next(theirs)
        features = [peer.preprocess(batch), peer.preprocess(batch)]
        finish(loss(features, None), peer, 1)

    return interleaved({"simcse_kit": our_step, "sentence-transformers": their_step}, rounds)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--sentences", type=int, default=2000)
    options = parser.parse_args()
    import sentence_transformers
    import torch
    import transformers

    torch.set_num_threads(options.threads)
    texts, source = sentences(options.sentences)
    results = {
        "encode": encoding(texts, options.rounds),
        "train_step_64x32": training_step(texts, options.rounds),
    }
    summary = {}
    for what, seconds in results.items():
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        ratio = medians["sentence-transformers"] / medians["simcse_kit"]
        summary[what] = {"median_seconds": medians, "times_faster": round(ratio, 2)}
        print(f"{what}: {ratio:.2f} times sentence-transformers ({medians})")
    environment = {
        "threads": options.threads,
        "cpu": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "sentence_transformers": sentence_transformers.__version__,
        "text": source,
        "sentences": len(texts),
    }
    document = {"summary": summary, "seconds": results, "environment": environment}
    (HERE / "results.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
