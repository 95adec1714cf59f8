"""Keep a server saturated, kill it at random, and check every answer.

    python evaluation/reliability/serve.py --minutes 60 --kills 10 --json serve.json

Clients send requests of several kinds in closed loops and compare every vector with ``encode``.
They repeat a request after a lost connection and after 429, 500, 503 and 504. A request is lost if
no attempt of five minutes succeeds. The server gets SIGKILL at random times and is started again at
once, and SIGTERM at the end. Its memory is read from /proc. Writes the file of --json.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
# Seconds: on a busy machine the server needs a minute to start.
PATIENCE = 300.0
# Allocators settle in the first minute of a process.
SETTLED = 60.0
REPEATED = (429, 500, 503, 504)
WORDS = "man woman dog guitar plays runs quickly street river market prices fell rain sun".split()


@dataclass
class Record:
    """What the clients and the watcher have seen; lists and counters are updated by threads."""

    seconds: list[float] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    worst: float = 0.0
    # Seconds since the start of the process, and megabytes, for each process.
    memory: list[list[tuple[float, float]]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Server:
    """The server, started again whenever it has ended."""

    def __init__(self, model: str, record: Record):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._model, self._record = model, record
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "simcse_kit", "serve", self._model]
        options = ["--name", "model", "--port", str(self.port), "--max-queue", "24"]
        paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        self.process = subprocess.Popen(
            [*command, *options], env=environment, stdout=subprocess.DEVNULL
        )
        self.began = time.monotonic()
        self._record.memory.append([])

    def sample(self) -> None:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        kilobytes = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        age = time.monotonic() - self.began
        self._record.memory[-1].append((age, int(kilobytes.split()[1]) / 1024))


@dataclass(frozen=True)
class Known:
    """Texts with their token ids and vectors."""

    texts: list[str]
    rows: list[list[int]]
    vectors: Any

    @classmethod
    def of(cls, model: str) -> Known:
        from simcse_kit import SentenceEncoder

        draw = np.random.default_rng(0)
        texts = [
            f"The {number} " + " ".join(draw.choice(WORDS, draw.integers(3, 40)))
            for number in range(1000)
        ]
        encoder = SentenceEncoder.load(model, device="cpu")
        return cls(texts, encoder.tokenize(texts)[0], encoder.encode(texts))

    def ask(self, draw: random.Random) -> tuple[str, dict[str, Any], list[int]]:
        """Choose a path, a body and the texts that it asks for."""
        kind = draw.choice(("one", "one", "one", "some", "ids", "many", "similarity"))
        count = {"one": 1, "some": 8, "ids": 4, "many": 200, "similarity": 3}[kind]
        chosen = draw.sample(range(len(self.texts)), count)
        texts = [self.texts[number] for number in chosen]
        if kind == "similarity":
            return "/v1/similarity", {"texts": texts}, chosen
        body = {"model": "model", "encoding_format": draw.choice(("float", "base64"))}
        given = [self.rows[number] for number in chosen] if kind == "ids" else texts
        return "/v1/embeddings", {**body, "input": given}, chosen

    def difference(self, path: str, answer: Any, chosen: list[int]) -> float:
        """Compare an answer with what it must be; infinity if its form is wrong."""
        expected = self.vectors[chosen]
        if path == "/v1/similarity":
            unit = expected / np.linalg.norm(expected, axis=1, keepdims=True)
            return float(np.abs(np.array(answer["similarity"]) - unit @ unit.T).max())
        found = [item["embedding"] for item in answer["data"]]
        if isinstance(found[0], str):
            found = [np.frombuffer(base64.b64decode(vector), "<f4") for vector in found]
        got = np.array(found, np.float32)
        return float(np.abs(got - expected).max()) if got.shape == expected.shape else np.inf


def client(port: int, known: Known, record: Record, seed: int, end: float) -> None:
    """Send requests until the end, and repeat those that fail."""
    draw = random.Random(seed)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    while time.monotonic() < end:
        path, body, chosen = known.ask(draw)
        content = json.dumps(body)
        began = time.monotonic()
        while True:
            try:
                connection.request("POST", path, content, {"Content-Type": "application/json"})
                response = connection.getresponse()
                status, answer = response.status, response.read()
            except (OSError, http.client.HTTPException):
                connection.close()
                status, answer = 0, b""
            seconds = time.monotonic() - began
            if status == 200 or (status and status not in REPEATED) or seconds > PATIENCE:
                break
            with record.lock:
                record.counts[f"repeated after {status or 'a lost connection'}"] += 1
            time.sleep(0.2 + 0.3 * draw.random())
        difference = known.difference(path, json.loads(answer), chosen) if status == 200 else 0.0
        with record.lock:
            record.seconds.append(seconds)
            record.counts["requests"] += 1
            record.counts["lost"] += status != 200
            record.counts["wrong"] += not difference < 1e-4
            record.worst = max(record.worst, difference)


def growth(memory: list[tuple[float, float]]) -> float | None:
    """Fit megabytes per minute after the first minute; None for a short life."""
    settled = np.array([sample for sample in memory if sample[0] > SETTLED])
    if len(settled) < 10:
        return None
    return round(float(np.polyfit(settled[:, 0], settled[:, 1], 1)[0] * 60), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="small")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, required=True, help="file of the results")
    given = parser.parse_args()
    record, known = Record(), Known.of(given.model)
    server = Server(given.model, record)
    began = time.monotonic()
    length = 60 * given.minutes
    draw = random.Random(given.seed)
    # The last kill leaves time for a restart.
    kills = sorted(began + length * draw.uniform(0.1, 0.9) for _ in range(given.kills))
    clients = [
        threading.Thread(target=client, args=(server.port, known, record, seed, began + length))
        for seed in range(given.clients)
    ]
    for thread in clients:
        thread.start()
    unexpected = 0
    while any(thread.is_alive() for thread in clients):
        time.sleep(1.0)
        if kills and time.monotonic() >= kills[0]:
            kills.pop(0)
            server.process.kill()
            server.process.wait()
            server.start()
        elif server.process.poll() is not None:
            unexpected += 1
            server.start()
        else:
            server.sample()
    server.process.terminate()
    code = server.process.wait(120)
    seconds = np.array(record.seconds)
    result = {
        "minutes": given.minutes,
        "kills": given.kills - len(kills),
        "unexpected_ends": unexpected,
        "exit_code_after_sigterm": code,
        **dict(sorted(record.counts.items())),
        "largest_difference": record.worst,
        "p50_ms": round(float(np.percentile(seconds, 50)) * 1e3, 1),
        "p99_ms": round(float(np.percentile(seconds, 99)) * 1e3, 1),
        "megabytes_at_end_of_each_process": [
            round(samples[-1][1]) for samples in record.memory if samples
        ],
        "growth_megabytes_per_minute": [growth(samples) for samples in record.memory],
    }
    given.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))
    if record.counts["lost"] or record.counts["wrong"] or unexpected or code:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
