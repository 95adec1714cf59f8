"""A light HTTP client for load: raw sockets in one thread, requests written in advance.

Each client sends its next request when it has the answer to the last one (a closed loop). The
answers are kept as bytes and parsed after the measurement, so that the client takes little CPU.
"""

from __future__ import annotations

import argparse
import json
import selectors
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["Load", "drive", "request"]


@dataclass
class Load:
    """Result of a measurement.

    Attributes:
        seconds: Latency of each answer.
        texts: Number of the text of each answer.
        bodies: Some bodies of answers by the number of their text, for checks.
        failures: Number of answers with another status than 200.
        elapsed: Length of the measurement in seconds.
    """

    seconds: list[float] = field(default_factory=list)
    texts: list[int] = field(default_factory=list)
    bodies: dict[int, bytes] = field(default_factory=dict)
    failures: int = 0
    elapsed: float = 0.0


@dataclass
class _Client:
    connection: socket.socket
    text: int
    sent: float = 0.0
    received: bytes = b""
    length: int = -1


def request(model: str, text: str) -> bytes:
    """Write a request for the vector of one text."""
    body = json.dumps({"model": model, "input": text}).encode()
    head = (
        "POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def drive(port: int, requests: Sequence[bytes], *, clients: int, seconds: float) -> Load:
    """Send requests in a closed loop, and measure the answers.

    Args:
        port: Port of the server.
        requests: Requests; the clients go through them in turn.
        clients: Number of connections.
        seconds: Length of the measurement.
    """
    load = Load()
    chosen = selectors.DefaultSelector()
    following = 0

    def send(client: _Client) -> None:
        nonlocal following
        client.text = following % len(requests)
        following += 1
        client.received, client.length = b"", -1
        client.sent = time.perf_counter()
        client.connection.sendall(requests[client.text])

    everyone = []
    for _ in range(clients):
        connection = socket.create_connection(("127.0.0.1", port), timeout=60)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client = _Client(connection, 0)
        chosen.register(connection, selectors.EVENT_READ, client)
        everyone.append(client)
    began = time.perf_counter()
    for client in everyone:
        send(client)
    while time.perf_counter() - began < seconds:
        for key, _ in chosen.select(timeout=1.0):
            client = key.data
            part = client.connection.recv(1 << 16)
            if not part:
                raise ConnectionError("the server has closed a connection")
            client.received += part
            if client.length < 0 and (end := client.received.find(b"\r\n\r\n")) >= 0:
                head = client.received[:end].lower()
                size = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
                client.length = end + 4 + size
            if 0 <= client.length <= len(client.received):
                load.seconds.append(time.perf_counter() - client.sent)
                load.texts.append(client.text)
                if client.received.startswith(b"HTTP/1.1 200"):
                    load.bodies[client.text] = client.received.partition(b"\r\n\r\n")[2]
                else:
                    load.failures += 1
                send(client)
    load.elapsed = time.perf_counter() - began
    for client in everyone:
        client.connection.close()
    return load


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("port", type=int)
    parser.add_argument("--model", default="small", help="name of the model in the requests")
    parser.add_argument("--text", default="A man is playing a guitar.")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args()
    requests = [request(given.model, given.text)]
    load = drive(given.port, requests, clients=given.clients, seconds=given.seconds)
    ordered = sorted(load.seconds)
    p50, p99 = (1e3 * ordered[int(share * (len(ordered) - 1))] for share in (0.5, 0.99))
    rate = len(ordered) / load.elapsed
    print(f"{rate:.1f} requests/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms, {load.failures} failures")


if __name__ == "__main__":
    main()
