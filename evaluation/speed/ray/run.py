"""Throughput of `simcse encode --engine ray` after start-up, against the local engine.

    python evaluation/speed/ray/run.py --sentences 200000 --rounds 3 --json FILE

Each round runs three jobs one after the other, in another order each time: the local engine with
two threads, Ray with two workers of one thread, and Ray with one worker of one thread on one core.
The start-up of the local engine is the time until it begins with the first sentence; that of Ray is
the time until all workers have begun with their first shard, as `--json` reports it. The checks
after the last shard are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[3]

LOCAL = """
import json, sys, time
from pathlib import Path
began = time.time()
import torch
torch.set_num_threads(int(sys.argv[4]))
from simcse_kit import SentenceEncoder
from simcse_kit.bulk.job import BulkJob
from simcse_kit.bulk.output import OutputSpec
from simcse_kit.bulk.text_source import TextSource
from simcse_kit.encoder.encode_options import EncodeOptions
from simcse_kit.utils.process import keep_few_kernels
keep_few_kernels()
model, text, output, _, rows = sys.argv[1:]
text = TextSource(text)
encoder = SentenceEncoder.load(model, device="cpu")
job = BulkJob(encoder, OutputSpec.of(output + "/", shard_rows=int(rows)), EncodeOptions())
ready = time.time()
done = job.run(text, total=text.total)
ended = (Path(output) / "journal-1-of-1.jsonl").stat().st_mtime
print(json.dumps({"startup_seconds": ready - began,
                  "rows_per_second": done.computed / (ended - ready)}))
"""


def run(arguments: list[str], cores: list[int], threads: int) -> dict[str, Any]:
    environment = os.environ | {
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": str(threads),
        # By default Ray gives its workers a lower priority than other processes.
        "RAY_worker_niceness": "0",
    }
    done = subprocess.run(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=environment,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    found = json.loads(done.stdout.splitlines()[-1])
    return {name: found[name] for name in ("startup_seconds", "rows_per_second")}


def job(name: str, text: Path, output: Path, given: argparse.Namespace) -> dict[str, Any]:
    cores = sorted(os.sched_getaffinity(0))[:2]
    rows = str(given.shard_rows)
    if name == "local, two threads":
        arguments = ["-c", LOCAL, given.model, str(text), str(output), "2", rows]
        return run(arguments, cores, 2)
    workers = 1 if name == "ray, one worker" else 2
    options = ["--output", f"{output}/", "--shard-rows", rows, "--json"]
    start = ["-m", "simcse_kit", "-q", "encode", given.model, str(text), *options]
    return run([*start, "--engine", "ray", "--workers", str(workers)], cores[:workers], 1)


JOBS = ["local, two threads", "ray, two workers", "ray, one worker"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sentences", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shard-rows", type=int, default=4096)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    sys.path.insert(0, str(REPOSITORY / "evaluation/reliability"))
    from ray_kills import write_text

    found: dict[str, list[dict[str, Any]]] = {name: [] for name in JOBS}
    with TemporaryDirectory() as place:
        text = Path(place, "text.txt")
        write_text(text, given.sentences)
        for number in range(given.rounds):
            order = JOBS[number % 3 :] + JOBS[: number % 3]
            for name in order:
                output = Path(place, f"{number}-{name.replace(' ', '-').replace(',', '')}")
                found[name].append(job(name, text, output, given))
                print(json.dumps({"round": number, "job": name, **found[name][-1]}), flush=True)
    rates = {
        name: statistics.median(each["rows_per_second"] for each in found[name]) for name in JOBS
    }
    local, two, one = (rates[name] for name in JOBS)
    result = {
        "sentences": given.sentences,
        "shard_rows": given.shard_rows,
        "model": given.model,
        "median_rows_per_second": rates,
        "ray_over_local": round(two / local, 3),
        "two_workers_over_one": round(two / one, 3),
        "rounds": found,
    }
    print(json.dumps({name: result[name] for name in ("ray_over_local", "two_workers_over_one")}))
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
