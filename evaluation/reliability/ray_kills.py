"""Kill workers and the command of `simcse encode --engine ray`, and compare with the local engine.

    python evaluation/reliability/ray_kills.py --sentences 200000 --kills 10 --json FILE

The local engine encodes the text first. Then Ray encodes it with two workers. At random moments
after the first shards, one worker at a time is killed (SIGKILL), and once, after half of the kills,
the command with its cluster; the same command then continues. Finally the vectors are compared: the
largest difference of a number, and the rows, the order of the shards and the checksums of the text.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil

REPOSITORY = Path(__file__).resolve().parents[2]


def write_text(path: Path, count: int) -> None:
    """Write distinct sentences."""
    lines = (REPOSITORY / "data/sentences.txt").read_text(encoding="utf-8").splitlines()
    texts = (f"{lines[n % len(lines)]} {n // len(lines)}" for n in range(count))
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")


def command(model: str, text: Path, output: Path, shard_rows: int, engine: str) -> list[str]:
    start = [sys.executable, "-m", "simcse_kit", "-q", "encode", model, str(text)]
    shards = ["--shard-rows", str(shard_rows), "--engine", engine, "--json"]
    return [*start, "--output", f"{output}/", *shards]


def start(arguments: list[str], log: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=log.open("a"),
        text=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "RAY_worker_niceness": "0"},
    )


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    found = []
    for each in psutil.Process(process.pid).children(recursive=True):
        try:
            if "MapWorker" in "".join(each.cmdline()):
                found.append(each)
        except psutil.NoSuchProcess:
            continue
    return found


def finished(folder: Path) -> int:
    journal = folder / "journal-1-of-1.jsonl"
    return journal.read_text().count("\n") if journal.exists() else 0


def kill_worker(running: subprocess.Popen[str], draw: random.Random) -> bool:
    found = workers_of(running)
    if found:
        draw.choice(found).send_signal(signal.SIGKILL)
    return bool(found)


def encode_with_kills(
    arguments: list[str], folder: Path, log: Path, shards: int, given: argparse.Namespace
) -> dict[str, Any]:
    """Run the command; each kill comes when a number of shards, drawn in advance, is finished."""
    draw = random.Random(given.seed)
    kills = ["worker"] * given.kills
    kills.insert(len(kills) // 2, "command")
    # No kill after the last shards, which would come too late.
    moments = sorted(draw.choices(range(1, max(2, shards - 2)), k=len(kills)))
    record: dict[str, Any] = {"workers": 0, "commands": 0, "at_shards": moments}
    running = start(arguments, log)
    for kind, moment in zip(kills, moments, strict=True):
        while running.poll() is None and finished(folder) < moment:
            time.sleep(0.02)
        time.sleep(draw.random() * given.within)
        if running.poll() is not None:
            break
        if kind == "worker":
            while running.poll() is None and not kill_worker(running, draw):
                time.sleep(0.02)
            record["workers"] += 1
        else:
            cluster = psutil.Process(running.pid).children(recursive=True)
            running.kill()
            running.wait()
            record["commands"] += 1
            _, alive = psutil.wait_procs(cluster, timeout=60)
            record["processes_left_after_a_minute"] = len(alive)
            running = start(arguments, log)
    out, _ = running.communicate()
    record["exit_code"] = running.returncode
    record["summary"] = json.loads(out) if running.returncode == 0 else None
    return record


def differences(one: Path, two: Path) -> dict[str, Any]:
    """Compare two folders of vectors."""
    documents = [json.loads((folder / "manifest.json").read_text()) for folder in (one, two)]
    parts = [document.pop("shards") for document in documents]
    most, equal = 0.0, 0
    for ours, theirs in zip(*parts, strict=True):
        found = np.load(one / ours["file"]), np.load(two / theirs["file"])
        most = max(most, float(np.abs(found[0] - found[1]).max()))
        equal += ours["sha256"] == theirs["sha256"]
    kept = [[{**part, "sha256": ""} for part in each] for each in parts]
    return {
        "manifests_equal": documents[0] == documents[1] and kept[0] == kept[1],
        "shards": len(parts[0]),
        "shards_equal_byte_by_byte": equal,
        "largest_difference": most,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sentences", type=int, default=200_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--shard-rows", type=int, default=2048)
    parser.add_argument("--within", type=float, default=2, help="Seconds after a finished shard.")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with TemporaryDirectory() as place:
        folder = Path(place)
        text, log = folder / "text.txt", folder / "stderr.log"
        write_text(text, given.sentences)
        local, cluster = folder / "local", folder / "ray"
        at = time.monotonic()
        alone = start(command(given.model, text, local, given.shard_rows, "local"), log)
        alone.communicate()
        assert alone.returncode == 0, log.read_text()[-2000:]
        row: dict[str, Any] = {"sentences": given.sentences, "shard_rows": given.shard_rows}
        row["seconds_local"] = round(time.monotonic() - at, 1)
        at = time.monotonic()
        arguments = command(given.model, text, cluster, given.shard_rows, "ray")
        shards = -(-given.sentences // given.shard_rows)
        row["killed"] = encode_with_kills(arguments, cluster, log, shards, given)
        row["seconds_ray"] = round(time.monotonic() - at, 1)
        assert row["killed"]["exit_code"] == 0, log.read_text()[-2000:]
        row |= differences(local, cluster)
        row["files_left"] = sorted(path.name for path in cluster.glob(".*"))
    print(json.dumps(row, indent=1))
    if given.json:
        given.json.write_text(json.dumps(row, indent=1) + "\n")


if __name__ == "__main__":
    main()
