"""Compare the weights after the same training steps in one process and in several.

    python evaluation/reliability/processes.py --json evaluation/reliability/processes.json

Each case makes a few steps of a method (forward, backward, SGD, state) in W processes that share
each batch (gloo, on this machine), and is compared with one process and the same batch: every
parameter and every buffer (queue, momentum copy, prototypes, BatchNorm). "plain" is the method's
own undivided step in one process.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Case:
    """Method, options and batch of a case."""

    method: str
    kind: str = "texts"
    options: dict[str, Any] = field(default_factory=dict)
    rows: int = 8
    chunk_tokens: int | None = None
    dropout: float = 0.0

    @property
    def comparable(self) -> bool:
        """Whether the undivided step gives the same result. With dropout its masks differ."""
        return self.dropout == 0


TRIPLETS = {"temperature": 0.1, "hard_negative_alpha": 2.0}
CASES = {
    "InfoNCE, hard negatives": Case("simcse", "triplets", TRIPLETS),
    "InfoNCE, 7 rows": Case("simcse", "triplets", TRIPLETS, rows=7),
    "InfoNCE, 1 row": Case("simcse", "triplets", TRIPLETS, rows=1),
    "InfoNCE, cached": Case("simcse", "triplets", TRIPLETS, chunk_tokens=40),
    "InfoNCE, cached, dropout": Case("simcse", "triplets", TRIPLETS, chunk_tokens=40, dropout=0.1),
    "InfoNCE, learned temperature": Case(
        "simcse", "pairs", {"learn_temperature": True, "mlp_only_train": False}
    ),
    "unsupervised, cached, dropout": Case("simcse", chunk_tokens=40, dropout=0.1),
    "MoCo's queue": Case("moco", "pairs", {"queue_size": 12, "momentum": 0.9}),
    "MoCo's queue, cached": Case(
        "moco", "pairs", {"queue_size": 12, "momentum": 0.9}, chunk_tokens=40
    ),
    "BYOL": Case("byol", "pairs"),
    "SimSiam": Case("simsiam", "pairs"),
    "SimCLR": Case("simclr", "pairs"),
    "SwAV": Case("swav", "pairs", {"prototypes": 8, "hidden": 32, "frozen": 0.0}),
    "prototypical": Case(
        "prototypical", "pairs", {"queue_size": 32, "clusters": [3], "every": 2, "warmup": 0.0}
    ),
    "two encoders": Case("dual_encoder", "triplets"),
    "margin": Case("margin_contrastive", "labelled"),
    "graded pairs": Case("graded", "labelled"),
    "graded pairs, cached": Case("graded", "labelled", chunk_tokens=40),
    "distillation, cached": Case("distill", chunk_tokens=40),
}
STEPS = 3


def batches(method: Any, case: Case) -> list[Any]:
    """Return the batches of a case, equal in every process."""
    import numpy as np

    from simcse_kit.data.collate import Collator
    from simcse_kit.data.readers import Example
    from simcse_kit.methods.common.batch import Batch
    from simcse_kit.methods.common.contrast import DataSpec
    from simcse_kit.methods.common.teachers import TeacherConfig

    words = (
        "the a cat dog man woman sat ran plays reads on in under park house river red old".split()
    )
    draw = random.Random(0)

    def sentence() -> str:
        return " ".join(draw.choices(words, k=draw.randint(2, 9)))

    kind: Any = case.kind
    views = type(method).views(DataSpec(kind, 1))
    dim = method.encoder.embedding_dim
    collate = Collator(
        method.encoder.tokenize,
        method.encoder.tokenizer.pad_token_id,
        views,
        targets=(lambda rows: np.random.default_rng(0).random((len(rows), dim), np.float32))
        if isinstance(method.options, TeacherConfig)
        else None,
    )
    label = (lambda row: float(row % 2)) if kind == "labelled" else (lambda _: None)
    return [
        Batch(
            **collate(
                [
                    Example(tuple(sentence() for _ in range(max(views) + 1)), label(row))
                    for row in range(case.rows)
                ]
            )
        )
        for _ in range(STEPS)
    ]


def steps(case: Case, model: str, dtype: Any, processes: Any, *, plain: bool) -> dict[str, Any]:
    """Train a case; return its parameters, buffers and losses."""
    import torch

    from simcse_kit.encoder.encoder import SentenceEncoder
    from simcse_kit.methods import METHODS, build_config
    from simcse_kit.training.batching.gradient_cache import GradientCache

    torch.manual_seed(0)
    encoder = SentenceEncoder.load(model, pooling="mean")
    encoder.set_dropout(case.dropout)
    method = METHODS.resolve(case.method)(encoder, build_config(case.method, case.options))
    method = method.train().to(dtype)
    cache = GradientCache(case.chunk_tokens, processes=processes)
    optimizer = torch.optim.SGD([w for w in method.parameters() if w.requires_grad], lr=0.05)
    losses = []
    start = {name: tensor.detach().clone() for name, tensor in method.named_parameters()}
    torch.manual_seed(1)
    for number, batch in enumerate(batches(method, case), start=1):
        optimizer.zero_grad()
        output = method(**vars(batch)) if plain else cache(method, batch)
        output.loss.backward()
        processes.average_gradients([w for w in method.parameters() if w.requires_grad])
        optimizer.step()
        method.after_step(number / STEPS)
        losses.append(output.loss.detach())
    found = {name: tensor.detach().clone() for name, tensor in method.state_dict().items()}
    moved = max(float((w - start[name]).abs().max()) for name, w in method.named_parameters())
    return {"moved": torch.tensor(moved), "losses": torch.stack(losses), **found}


def work(model: str, dtype_name: str, output: str, names: list[str], plain: bool) -> None:
    """Run all cases in one of the processes; the first process saves the results."""
    sys.path.insert(0, str(REPOSITORY))
    import logging

    import torch

    from simcse_kit.utils.distributed import Processes

    logging.getLogger("simcse_kit").setLevel(logging.ERROR)
    dtype = getattr(torch, dtype_name)
    with Processes.joined(patience=timedelta(minutes=2)) as processes:
        found = {
            name: steps(CASES[name], model, dtype, processes, plain=plain)
            for name in names
            if not plain or CASES[name].comparable
        }
        if processes.first:
            torch.save(found, output)


def launch(size: int, *arguments: str) -> None:
    """Start ``size`` of these processes and wait for them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, __file__, "--work", *arguments],
            env=os.environ | address | {"RANK": str(rank), "WORLD_SIZE": str(size)},
        )
        for rank in range(size)
    ]
    codes = [process.wait() for process in running]
    if any(codes):
        raise SystemExit("a process failed")


def furthest(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Return the largest absolute difference of any number."""
    assert one.keys() == other.keys()
    return max(
        float((one[name].double() - other[name].double()).abs().max())
        for name in one
        if one[name].numel()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mini")
    parser.add_argument("--sizes", default="2,3,4")
    parser.add_argument("--dtypes", default="float64,float32")
    parser.add_argument("--cases", default="", help="names, separated by |; default: all")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--work", nargs=5, metavar=("MODEL", "DTYPE", "OUT", "NAMES", "PLAIN"))
    given = parser.parse_args()
    if given.work:
        model, dtype, output, names, plain = given.work
        work(model, dtype, output, names.split("|"), plain == "plain")
        return
    import torch

    names = given.cases or "|".join(CASES)
    sizes = [int(size) for size in given.sizes.split(",")]
    rows: list[dict[str, Any]] = []
    with TemporaryDirectory() as folder:
        for dtype in given.dtypes.split(","):
            found = {}
            for key, size, plain in (
                ("plain", 1, "plain"),
                *((str(size), size, "") for size in (1, *sizes)),
            ):
                path = str(Path(folder, f"{dtype}-{key}.pt"))
                launch(size, given.model, dtype, path, names, plain)
                found[key] = torch.load(path, weights_only=True)
            for name in names.split("|"):
                against = {
                    f"{size} processes": furthest(found["1"][name], found[str(size)][name])
                    for size in sizes
                    if CASES[name].comparable or CASES[name].chunk_tokens
                }
                if CASES[name].comparable:
                    against["plain"] = furthest(found["1"][name], found["plain"][name])
                moved = float(found["1"][name]["moved"])
                rows.append(
                    {"case": name, "dtype": dtype, "moved": moved, "largest_difference": against}
                )
    columns = [*(f"{size} processes" for size in sizes), "plain"]
    print("| case | numbers | a weight moved by | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 3) + "|")
    for row in rows:
        shown = [row["largest_difference"].get(column) for column in columns]
        cells = ["" if value is None else f"{value:.1e}" for value in shown]
        print(
            f"| {row['case']} | {row['dtype']} | {row['moved']:.1e} | " + " | ".join(cells) + " |"
        )
    if given.json:
        given.json.write_text(json.dumps({"steps": STEPS, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
