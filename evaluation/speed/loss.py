"""InfoNCE, forward and backward: time and peak memory, beside its matrix products alone.

    python evaluation/speed/loss.py --rows 4096 16384 65536 --threads 1 --rounds 3

Each measurement is a fresh process, so that no allocator remembers another variant; within a
round the variants take turns. Memory is the growth of the process's RSS high-water mark over what
it was with the inputs in place. ``products`` runs the same matrix products, of the same shapes, in
the same order and nothing else; ``whole`` is the plain loss; ``checkpointed`` runs strips of 1,024
anchors under torch.utils.checkpoint. The last two stop at ``--most-whole`` and
``--most-checkpointed`` rows. Writes results-loss.json beside this file.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from simcse_kit.losses import info_nce as info_nce_module
from simcse_kit.losses.info_nce import info_nce
from simcse_kit.losses.info_nce_chunked import strip_width
from simcse_kit.losses.similarity import cosine_matrix

HERE = Path(__file__).resolve().parent
TAU = 0.05


def products(anchors: Tensor, positives: Tensor) -> Tensor:
    rows, dim = anchors.shape
    step = strip_width(rows, rows, dim)
    strip = torch.empty(rows * step)
    gradient = torch.zeros(rows, dim)
    with torch.no_grad():
        for start in range(0, rows, step):
            some = anchors[start : start + step]
            logits = strip[: rows * len(some)].view(rows, -1)
            torch.mm(positives, some.T, out=logits)
            pull = logits.T @ positives
            gradient.addmm_(logits, some)
    return pull


def whole(anchors: Tensor, positives: Tensor) -> Tensor:
    info_nce_module.TILES_FROM = sys.maxsize
    return info_nce(anchors, positives, temperature=TAU)


def strips(anchors: Tensor, positives: Tensor) -> Tensor:
    info_nce_module.TILES_FROM = 0
    return info_nce(anchors, positives, temperature=TAU)


def symmetric(anchors: Tensor, positives: Tensor) -> Tensor:
    info_nce_module.TILES_FROM = 0
    return info_nce(anchors, positives, temperature=TAU, symmetric=True)


def checkpointed(anchors: Tensor, positives: Tensor, step: int = 1024) -> Tensor:
    def part(some: Tensor, everything: Tensor, start: int) -> Tensor:
        logits = cosine_matrix(some, everything) / TAU
        right = torch.arange(start, start + len(some))
        return torch.nn.functional.cross_entropy(logits, right, reduction="sum")

    sums = [
        checkpoint(part, anchors[start : start + step], positives, start, use_reentrant=False)
        for start in range(0, len(anchors), step)
    ]
    return torch.stack(sums).sum() / len(anchors)


VARIANTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    f.__name__: f for f in (products, strips, symmetric, whole, checkpointed)
}


def measure(variant: str, rows: int, dim: int, threads: int) -> dict[str, float]:
    torch.set_num_threads(threads)
    run = VARIANTS[variant]
    warm = [torch.randn(64, dim, requires_grad=True) for _ in range(2)]
    if (value := run(*warm)).requires_grad:
        value.backward()
    torch.manual_seed(0)
    anchors = torch.randn(rows, dim)
    # Correlated, so that positives are easy and some losses are near zero, as in training.
    positives = torch.randn(rows, dim).mul_(0.8).add_(anchors)
    anchors.requires_grad_()
    positives.requires_grad_()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.perf_counter(), time.process_time()
    loss = run(anchors, positives)
    if loss.requires_grad:
        loss.backward()
    measured = {
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
    }
    if anchors.grad is not None:
        measured |= {"loss": loss.item(), "gradient_norm": anchors.grad.norm().item()}
    return measured


def in_fresh_process(variant: str, rows: int, options: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", variant, "--rows", str(rows)]
    command += ["--dim", str(options.dim), "--threads", str(options.threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def compare(rows: int, options: argparse.Namespace) -> dict[str, object]:
    most = {"whole": options.most_whole, "checkpointed": options.most_checkpointed}
    names = [name for name in options.variants if rows <= most.get(name, rows)]
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(options.rounds):
        for name in names:
            runs[name].append(in_fresh_process(name, rows, options))
            print(rows, name, runs[name][-1], file=sys.stderr, flush=True)
    summary: dict[str, object] = {}
    for name in names:
        middle = {key: statistics.median(run[key] for run in runs[name]) for key in runs[name][0]}
        summary[name] = middle
        line = f"{rows:7d} {name:13s} {middle['seconds']:8.2f} s {middle['peak_mb']:8.0f} MB"
        if "products" in names:
            times = {
                key: middle[key] / statistics.median(run[key] for run in runs["products"])
                for key in ("seconds", "cpu_seconds")
            }
            middle |= {f"times_products_{key}": value for key, value in times.items()}
            line += f"  {times['seconds']:.2f} times the products"
            line += f" ({times['cpu_seconds']:.2f} in CPU time)"
        print(line, flush=True)
    return {"median": summary, "runs": runs}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", default=[4096, 16384, 65536])
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--most-whole", type=int, default=16384)
    parser.add_argument("--most-checkpointed", type=int, default=16384)
    parser.add_argument("--one", choices=VARIANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        measured = measure(options.one, options.rows[0], options.dim, options.threads)
        print(json.dumps(measured))
        return
    document = {
        "rows": {str(rows): compare(rows, options) for rows in options.rows},
        "environment": {
            "threads": options.threads,
            "dim": options.dim,
            "temperature": TAU,
            "rounds": options.rounds,
            "cpu": platform.processor() or platform.machine(),
            "torch": torch.__version__,
        },
    }
    (HERE / "results-loss.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
