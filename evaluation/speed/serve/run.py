"""Measure requests per second and latencies of `simcse serve` against other servers.

    cd evaluation/speed/serve && python run.py small MODEL --output results
    python run.py small --seconds 5 --rounds 3 --infinity /path/to/infinity_emb

Clients send one sentence each in a closed loop. All servers of a model are started before the
rounds and measured in turn, A B C A B C …; an idle server takes no CPU. The first round does not
count. Every answer's vector is compared with ``encode``. Writes OUTPUT.json and prints a table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from load import Load, drive, request

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[2]
WORDS = "man woman dog guitar plays runs quickly street river market prices fell rain sun".split()


def texts(count: int) -> list[str]:
    """Make sentences of 6 to 20 words."""
    draw = np.random.default_rng(0)
    return [
        f"The {number} " + " ".join(draw.choice(WORDS, draw.integers(5, 19)))
        for number in range(count)
    ]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start(name: str, folder: str, threads: int, infinity: str | None) -> tuple[Any, int]:
    """Start a server, and wait until it answers."""
    port = free_port()
    commands = {
        "simcse serve": [
            *(sys.executable, "-m", "simcse_kit", "serve", folder, "--name", "model"),
            *("--port", str(port)),
        ],
        "FastAPI + sentence-transformers": [
            *(sys.executable, str(HERE / "plain.py"), folder, "--port", str(port))
        ],
        "infinity": [
            *(infinity or "", "v2", "--model-id", folder, "--served-model-name", "model"),
            *("--port", str(port), "--url-prefix", "/v1", "--device", "cpu"),
        ],
    }
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    environment["DO_NOT_TRACK"] = "1"
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    process = subprocess.Popen(
        commands[name], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    for _ in range(1200):
        if process.poll() is not None:
            raise SystemExit(f"{name} ended with {process.returncode}")
        try:
            drive(port, [request("model", "a")], clients=1, seconds=0.1)
        except OSError:
            time.sleep(0.25)
        else:
            return process, port
    raise SystemExit(f"{name} does not answer")


def largest_difference(load: Load, expected: Any, *, scaled: bool) -> float:
    """Compare the vectors of all kept answers with those of ``encode``.

    Args:
        load: Answers.
        expected: ``(n, d)`` vectors of all texts.
        scaled: Whether the server scales vectors to unit length.
    """
    if scaled:
        expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    differences = [
        np.abs(np.array(json.loads(body)["data"][0]["embedding"]) - expected[text]).max()
        for text, body in load.bodies.items()
    ]
    return float(max(differences, default=0.0))  # a slow server may have answered nothing


def measure(folder: str, given: argparse.Namespace) -> dict[str, Any]:
    """Measure all servers with one model."""
    from simcse_kit import SentenceEncoder

    encoder = SentenceEncoder.load(folder, device="cpu")
    place = str(encoder.source)
    sentences = texts(512)
    expected = encoder.encode(sentences)
    requests = [request("model", text) for text in sentences]
    names = [
        "simcse serve",
        "FastAPI + sentence-transformers",
        *(["infinity"] * bool(given.infinity)),
    ]
    servers = {}
    try:
        for name in names:
            servers[name] = start(name, place, given.threads, given.infinity)
        rounds: dict[str, list[Load]] = {name: [] for name in names}
        for _ in range(given.rounds + 1):
            for name, (_, port) in servers.items():
                time.sleep(0.3)
                load = drive(port, requests, clients=given.clients, seconds=given.seconds)
                rounds[name].append(load)
    finally:
        for process, _ in servers.values():
            process.terminate()
    result = {}
    for name, loads in rounds.items():
        counted = loads[1:]
        rates = [len(load.seconds) / load.elapsed for load in counted]
        seconds = np.concatenate([load.seconds for load in counted])
        scaled = name == "infinity"
        differences = [largest_difference(load, expected, scaled=scaled) for load in loads]
        result[name] = {
            "requests_per_second": round(median(rates), 1),
            "lowest": round(min(rates), 1),
            "highest": round(max(rates), 1),
            "p50_ms": round(float(np.percentile(seconds, 50)) * 1e3, 2),
            "p99_ms": round(float(np.percentile(seconds, 99)) * 1e3, 2),
            "failures": sum(load.failures for load in counted),
            "largest_difference": max(differences),
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="MODEL", help="bundled name or folder")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a turn")
    parser.add_argument("--rounds", type=int, default=4, help="rounds that count")
    parser.add_argument("--threads", type=int, default=1, help="torch threads of each server")
    parser.add_argument("--infinity", metavar="FILE", help="infinity_emb of its own environment")
    parser.add_argument("--output", type=Path, default=Path("results"), help="without suffix")
    given = parser.parse_args()
    results: dict[str, Any] = {
        "clients": given.clients,
        "threads": given.threads,
        "seconds": given.seconds,
        "rounds": given.rounds,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
        "models": {},
    }
    for folder in given.models:
        found = results["models"][Path(folder).name] = measure(folder, given)
        base = found["FastAPI + sentence-transformers"]["requests_per_second"]
        for name, row in found.items():
            print(
                f"{Path(folder).name:12} {name:34} {row['requests_per_second']:8.1f}/s "
                f"({row['requests_per_second'] / base:.2f} x)  p50 {row['p50_ms']:7.1f} ms  "
                f"p99 {row['p99_ms']:7.1f} ms  difference {row['largest_difference']:.1e}",
                flush=True,
            )
    results["load_after"] = os.getloadavg()[0]
    given.output.with_suffix(".json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
