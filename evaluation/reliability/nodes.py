"""Train on two nodes that meet by torchrun's rendezvous, and kill one of them.

    sudo python evaluation/reliability/nodes.py --network netns    # writes nodes.json
    python evaluation/reliability/nodes.py --network loopback --output FILE

With ``netns`` each node is a network namespace of Linux with its own address, joined by a virtual
cable; with ``loopback`` the nodes are the addresses 127.0.0.1 and 127.0.0.2. One run trains in one
process, one on two nodes, and one on two nodes of which one is killed (torchrun and its process);
the last is then resumed on one node. The weights of all three are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

REPOSITORY = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]),
}


@dataclass(frozen=True)
class Node:
    """A node: its address, network interface, and the words before a command that runs on it."""

    address: str
    interface: str
    prefix: tuple[str, ...] = ()

    def start(self, log: Path, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start Python on the node, in a process group of its own."""
        return subprocess.Popen(
            [*self.prefix, sys.executable, *arguments],
            env=os.environ | ENVIRONMENT | {"GLOO_SOCKET_IFNAME": self.interface},
            stdout=subprocess.DEVNULL,
            stderr=log.open("w"),
            start_new_session=True,
        )

    def join(self, log: Path, endpoint: str, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start torchrun with one process on the node; the endpoint is on one of the nodes."""
        options = ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d"]
        options += ["--rdzv-endpoint", endpoint, "--rdzv-id", "nodes"]
        # torchrun would compare the endpoint with the address of the host's name, which both share.
        host = int(endpoint.startswith(f"{self.address}:"))
        options += ["--local-addr", self.address, "--rdzv-conf", f"is_host={host}"]
        return self.start(
            log, ["-m", "torch.distributed.run", *options, "-m", "simcse_kit", *arguments]
        )


@contextmanager
def loopback() -> Iterator[list[Node]]:
    """Give two addresses of the loopback interface."""
    yield [Node("127.0.0.1", "lo"), Node("127.0.0.2", "lo")]


@contextmanager
def namespaces() -> Iterator[list[Node]]:
    """Make two network namespaces joined by a pair of virtual interfaces."""
    names = [f"simcse-{os.getpid()}-{side}" for side in "ab"]
    ends = [f"sk{os.getpid()}{side}" for side in "ab"]

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    try:
        for name in names:
            ip("netns", "add", name)
        link = ["link", "add", ends[0], "netns", names[0], "type", "veth"]
        ip(*link, "peer", "name", ends[1], "netns", names[1])
        for number, (name, end) in enumerate(zip(names, ends, strict=True), 1):
            ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", end)
            for interface in ("lo", end):
                ip("-n", name, "link", "set", interface, "up")
        yield [
            Node(f"10.77.0.{number}", end, ("ip", "netns", "exec", name))
            for number, (name, end) in enumerate(zip(names, ends, strict=True), 1)
        ]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, stderr=subprocess.DEVNULL)


NETWORKS = {"netns": namespaces, "loopback": loopback}


def training(model: str, text: str, output: Path, steps: int, *more: str) -> list[str]:
    """Return the arguments of a run whose checkpoints are 4 steps apart."""
    settings = ["training.chunk_tokens=200", "evaluation.every=4", "evaluation.held_out=32"]
    settings += ["trainer.optim=sgd", "training.learning_rate=0.05", "evaluation.trace_every=0"]
    settings += ["training.max_grad_norm=1000", "model.pooling=mean"]
    options = ["--max-steps", str(steps), "--batch-size", "9", "--preset", "none"]
    options += [part for setting in settings for part in ("--set", setting)]
    return ["train", text, "--model", model, *options, "--output", str(output), *more]


def finish(processes: Sequence[subprocess.Popen[bytes]], seconds: float) -> list[int]:
    """Wait for processes, and return their exit codes; kill what is left."""
    try:
        return [process.wait(timeout=seconds) for process in processes]
    finally:
        for process in processes:
            kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process with its children; torchrun gives its workers groups of their own."""
    if process.poll() is not None:
        return
    family, at = [process.pid], 0
    while at < len(family):
        for task in Path(f"/proc/{family[at]}/task").glob("*/children"):
            family += map(int, task.read_text().split())
        at += 1
    for number in family:
        try:
            os.kill(number, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def furthest(one: Path, other: Path) -> float:
    """Return the largest difference of any weight of two encoders."""
    from safetensors.torch import load_file

    ours, theirs = (load_file(folder / "model.safetensors") for folder in (one, other))
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def compare(
    nodes: list[Node], model: str, text: str, folder: Path, steps: int
) -> dict[str, float | int | str]:
    """Train in the three ways and compare the weights.

    Raises:
        SystemExit: A run failed that should not.
    """

    def succeed(name: str, processes: Sequence[subprocess.Popen[bytes]]) -> None:
        if any(finish(processes, 600)):
            logs = "\n".join(path.read_text()[-3000:] for path in folder.glob(f"{name}*.log"))
            raise SystemExit(f"{name} failed:\n{logs}")

    def log(name: str) -> Path:
        return folder / f"{name}.log"

    alone, both, broken = (folder / name for name in ("alone", "both", "broken"))
    run = training(model, text, alone, steps)
    succeed("alone", [nodes[0].start(log("alone"), ["-m", "simcse_kit", *run])])
    run = training(model, text, both, steps)
    place = f"{nodes[0].address}:{free_port()}"
    pairs = list(enumerate(nodes))
    succeed("both", [node.join(log(f"both{n}"), place, run) for n, node in pairs])

    run = training(model, text, broken, steps)
    place = f"{nodes[0].address}:{free_port()}"
    first, second = (node.join(log(f"broken{n}"), place, run) for n, node in pairs)
    began = time.monotonic()
    while not list(broken.glob("checkpoints/checkpoint-*")):
        if time.monotonic() - began > 600 or first.poll() is not None:
            kill(first)
            kill(second)
            raise SystemExit(f"no checkpoint was written:\n{log('broken0').read_text()[-3000:]}")
        time.sleep(0.02)
    kill(second)
    killed = time.monotonic()
    (code,) = finish([first], 120)
    seconds = time.monotonic() - killed
    at = max(int(path.name.partition("-")[2]) for path in broken.glob("checkpoints/checkpoint-*"))
    if (broken / "model.safetensors").exists():
        raise SystemExit("the run ended before the node was killed; give more --steps")
    lines = [line for line in log("broken0").read_text().splitlines() if "simcse: error" in line]
    succeed("resumed", [nodes[0].start(log("resumed"), ["-m", "simcse_kit", *run, "--resume"])])
    return {
        "steps": steps,
        "two nodes, largest difference": furthest(alone, both),
        "last checkpoint before the kill": at,
        "seconds until the other node ended": round(seconds, 1),
        "exit code of the other node": code,
        "its message": lines[-1] if lines else "",
        "resumed on one node, largest difference": furthest(alone, broken),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=list(NETWORKS), default="loopback")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--text", default=str(REPOSITORY / "data" / "sentences.txt"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("nodes.json"))
    given = parser.parse_args()
    with TemporaryDirectory() as folder, NETWORKS[given.network]() as nodes:
        found = compare(nodes, given.model, given.text, Path(folder), given.steps)
    found = {"network": given.network, "model": given.model, **found}
    print(json.dumps(found, indent=1))
    given.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
