"""Random SIGKILLs over training and encoding; whatever was killed ends with the same bytes.

    python evaluation/reliability/kills.py --kills 200 --json evaluation/reliability/kills.json

For each case, first a run that is left alone. Then the same run is killed (SIGKILL, at a moment
drawn anew each time, from before the first import to the last rename) and given again, until it is
through; then it is begun anew, until there were kills enough. Every finished run is held against
the first: the encoder, the newest checkpoint (weights, optimizer, schedule, random numbers, state
of the method) and the log of training; the file of vectors.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from simcse_kit.training.state.checkpoints import checkpoint_steps  # noqa: E402
from simcse_kit.training.verify_resume import differences  # noqa: E402

TEXTS, TRIPLETS = str(REPOSITORY / "data/sentences.txt"), str(REPOSITORY / "data/nli.csv")
DEV = str(REPOSITORY / "data/sts.tsv")
# Few tokens, so that a run is short beside its start and kills fall into its work.
TRAIN = [
    *("--batch-size", "8", "--max-steps", "18", "--max-length", "12", "--set"),
    *("evaluation.every=3", "--set", "evaluation.trace_every=4", "--set", "training.log_every=4"),
    *("--set", "evaluation.held_out=64"),
]
CASES: dict[str, list[str]] = {
    "train: simcse, dev set": ["train", TEXTS, "--dev", DEV, *TRAIN],
    "train: hard negatives, cached": [
        *("train", TRIPLETS, "--preset", "mini-sup", *TRAIN),
        *("--set", "training.chunk_tokens=200"),
    ],
    "train: moco, augmentation": [
        *("train", TEXTS, "--method", "moco", "--set", "method.queue_size=64"),
        *("--augment", "delete(0.1)|reorder(2)", *TRAIN),
    ],
    "train: prototypical, workers": [
        *("train", TEXTS, "--method", "prototypical", "--set", "method.queue_size=128"),
        *("--set", "method.clusters=[4]", "--set", "method.every=7"),
        *("--set", "trainer.dataloader_num_workers=1", *TRAIN),
    ],
    "encode: npy": ["encode", "mini", "TEXT", "--shard-rows", "300"],
    "encode: parquet": ["encode", "mini", "TEXT", "--shard-rows", "300"],
    "encode: folder, int8": [
        *("encode", "mini", "TEXT", "--shard-rows", "300", "--format", "jsonl"),
        *("--precision", "int8"),
    ],
}
TARGETS = {"encode: npy": "v.npy", "encode: parquet": "v.parquet"}


def command(case: str, folder: Path, *, again: bool) -> list[str]:
    arguments = [
        str(folder.parent / "text.txt") if part == "TEXT" else part for part in CASES[case]
    ]
    target = TARGETS.get(case, "out/" if case.startswith("encode") else "out")
    resume = ["--resume"] if again and case.startswith("train") else []
    start = [sys.executable, "-m", "simcse_kit", *arguments, "--output", str(folder / target)]
    return [*start, *resume]


def start(case: str, folder: Path, *, again: bool) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command(case, folder, again=again),
        stdout=subprocess.DEVNULL,
        stderr=(folder.parent / "said.log").open("ab"),
        env=os.environ | {"SIMCSE_CACHE": str(folder.parent / "cache"), "OMP_NUM_THREADS": "1"},
        start_new_session=True,  # workers go with it
    )


def outcome(case: str, folder: Path) -> Any:
    """What must be equal."""
    if case.startswith("train"):
        return folder / "out"
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name[0] != ".")
    kept = (path for path in files if not path.name.startswith("journal"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}


def same(case: str, folder: Path, first: Any) -> list[str]:
    if case.startswith("train"):
        return differences(first, folder / "out")[1]
    found = outcome(case, folder)
    return [name for name in {*found, *first} if found.get(name) != first.get(name)]


def where(case: str, folder: Path) -> str:
    """How far a killed run had come."""
    if case.startswith("train"):
        run = folder / "out"
        if (run / "result.json").exists():
            return "after its last step"
        return "between checkpoints" if checkpoint_steps(run / "checkpoints") else "before one"
    work = [*folder.glob("*.parts"), *folder.glob("out")]
    shards = [part for place in work for part in place.glob("part-*")]
    return "between shards" if shards else "before one"


def try_case(case: str, wanted: int, seed: str, root: Path) -> dict[str, Any]:
    """Kill one case so often; what came of it."""
    draw = random.Random(seed)
    lines = Path(TEXTS).read_text(encoding="utf-8").splitlines()
    text = [f"{line} {n}" for n in range(2) for line in lines]
    root.mkdir()
    (root / "text.txt").write_text("\n".join(text), encoding="utf-8")
    whole, cut = root / "whole", root / "cut"
    whole.mkdir()
    at = time.monotonic()
    assert start(case, whole, again=False).wait() == 0, (root / "said.log").read_text()
    lasts = time.monotonic() - at
    first = outcome(case, whole)
    row: dict[str, Any] = {"case": case, "seconds_alone": round(lasts, 1), "kills": 0}
    row |= {"finished_runs": 0, "killed": Counter(), "different": []}
    while row["kills"] < wanted or cut.exists():
        fresh = not cut.exists()
        cut.mkdir(exist_ok=True)
        at = time.monotonic()
        running = start(case, cut, again=(cut / "out" / "run.toml").exists())
        # Most of the work comes after the start of the program.
        wait = lasts * (draw.random() if draw.random() < 0.3 else draw.uniform(0.4, 1))
        try:
            code = running.wait(wait if row["kills"] < wanted else None)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()
            row["kills"] += 1
            row["killed"][where(case, cut)] += 1
            continue
        assert code == 0, (root / "said.log").read_text()[-2000:]
        row["finished_runs"] += 1
        if fresh:  # the machine may have become quicker or slower since
            lasts = time.monotonic() - at
        row["different"] += same(case, cut, first)
        shutil.rmtree(cut)
    shutil.rmtree(root)
    print(json.dumps(row), flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=210)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    began = time.monotonic()
    each = -(-given.kills // len(CASES))
    with TemporaryDirectory() as place, ThreadPoolExecutor(given.at_once) as pool:
        jobs = [
            pool.submit(try_case, case, each, f"{given.seed} {case}", Path(place, str(number)))
            for number, case in enumerate(CASES)
        ]
        rows = [job.result() for job in jobs]
    told = {
        "kills": sum(row["kills"] for row in rows),
        "finished_runs": sum(row["finished_runs"] for row in rows),
        "different": sum(len(row["different"]) for row in rows),
        "seconds": round(time.monotonic() - began),
    }
    print(json.dumps(told))
    if given.json:
        given.json.write_text(json.dumps(told | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
