"""The server as a process: sockets, signals and clients."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import httpx2
import numpy as np
import openai
import pytest

from simcse_kit import SentenceEncoder
from simcse_kit.errors import ConfigError
from simcse_kit.serve.server import bind
from simcse_kit.serve.settings import ServeSettings, read_key

KEY = "k3y-of-the-tests"


class Server:
    """A running ``simcse serve``."""

    def __init__(self, folder: Path, log: Path, *options: str):
        command = [sys.executable, "-m", "simcse_kit", "serve", str(folder), "--port", "0"]
        with log.open("w") as errors:
            self.process = subprocess.Popen(
                [*command, "--name", "tiny", *options],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        out = self.process.stdout
        assert out is not None
        self.out: IO[str] = out
        line = self.out.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        assert found, line + log.read_text()
        self.url, self.port = found[0], int(found[1])

    def raw(self, *parts: bytes, pause: float = 0.0) -> bytes:
        """Send bytes, and return all that the server sends until it closes the connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            answer = b""
            try:
                for part in parts:
                    connection.sendall(part)
                    time.sleep(pause)
            except OSError:
                pass  # the server has closed the connection
            try:
                while chunk := connection.recv(65_536):
                    answer += chunk
            except ConnectionResetError:
                pass
        return answer


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("serve") / "log"


@pytest.fixture(scope="module")
def server(tiny_encoder_dir: Path, log: Path) -> Iterator[Server]:
    key = log.with_name("key")
    key.write_text(KEY + "\n")
    key.chmod(0o600)
    server = Server(tiny_encoder_dir, log, "--api-key-file", str(key), "--timeout", "2")
    yield server
    server.process.kill()
    server.process.wait()
    server.out.close()


def head(path: str, length: int | str, *more: str) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        f"Authorization: Bearer {KEY}",
        "Content-Type: application/json",
        f"Content-Length: {length}",
        *more,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@pytest.mark.long
def test_the_client_of_openai_works(server: Server, tiny_encoder_dir: Path) -> None:
    texts = ["A man plays guitar.", "Prices rose."]
    encoder = SentenceEncoder.load(tiny_encoder_dir)
    expected = encoder.encode(texts)
    rows, _ = encoder.tokenize(texts)
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as client:
        found = client.embeddings.create(model="tiny", input=texts)
        floats = client.embeddings.create(model="tiny", input=rows, encoding_format="float")
        for answer in (found, floats):
            vectors = [item.embedding for item in answer.data]
            np.testing.assert_allclose(vectors, expected, atol=1e-5)
            assert answer.usage.prompt_tokens == sum(map(len, rows))
        short = client.embeddings.create(model="tiny", input=texts[0], dimensions=4)
        assert len(short.data[0].embedding) == 4
        assert [model.id for model in client.models.list()] == ["tiny"]
        assert client.models.retrieve("tiny").owned_by == "simcse-kit"
        with pytest.raises(openai.NotFoundError, match="not served here"):
            client.embeddings.create(model="other", input="a")
        with pytest.raises(openai.BadRequestError, match="text 0 is empty"):
            client.embeddings.create(model="tiny", input="")
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.models.list()


@pytest.mark.long
def test_hostile_clients_get_an_answer_and_the_server_lives_on(server: Server) -> None:
    with ThreadPoolExecutor(5) as pool:
        slow_body = pool.submit(server.raw, head("/v1/embeddings", 100), *[b" "] * 30, pause=0.1)
        slow_head = pool.submit(server.raw, b"GET / HTTP/1.1\r\nA: ", *[b"b"] * 40, pause=0.1)
        silent = pool.submit(server.raw)
        huge = pool.submit(server.raw, head("/v1/embeddings", 2**30), b" " * 65_536)
        chunked = head("/v1/embeddings", 0).replace(
            b"Content-Length: 0", b"Transfer-Encoding: chunked"
        )
        endless = pool.submit(server.raw, chunked, *[b"10000\r\n" + b" " * 65_536 + b"\r\n"] * 999)
        assert slow_body.result().startswith(b"HTTP/1.1 408 ")
        assert slow_head.result() == b""
        assert silent.result() == b""
        assert huge.result().startswith(b"HTTP/1.1 413 ")
        assert endless.result().startswith((b"HTTP/1.1 413 ", b""))
    assert server.raw(b"\x00\xff nonsense\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    many = json.dumps({"model": "tiny", "input": ["a"] * 10_000}).encode()
    answer = server.raw(head("/v1/embeddings", len(many), "Connection: close"), many)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert httpx2.get(f"{server.url}/health/ready").json()["status"] == "ok"


@pytest.mark.long
def test_a_client_that_leaves_is_noticed(server: Server) -> None:
    body = json.dumps({"model": "tiny", "input": ["some words " * 20] * 1500}).encode()
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(head("/v1/embeddings", len(body)) + body)
        while not httpx2.get(f"{server.url}/health").json()["waiting"]:
            time.sleep(0.005)
    headers = {"Authorization": f"Bearer {KEY}"}
    line = 'simcse_requests_total{path="/v1/embeddings",status="499"} 1.0'
    while line not in httpx2.get(f"{server.url}/metrics", headers=headers).text:
        time.sleep(0.05)
    assert httpx2.get(f"{server.url}/health").json()["waiting"] == 0


@pytest.mark.long
def test_sigterm_answers_what_was_accepted_and_exits_with_0(server: Server, log: Path) -> None:
    body = json.dumps({"model": "tiny", "input": ["some words " * 20] * 1500})
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}

    def ask() -> int:
        answer = httpx2.post(f"{server.url}/v1/embeddings", content=body, headers=headers)
        return answer.status_code

    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(ask) for _ in range(2)]
        while not (
            httpx2.get(f"{server.url}/health").json()["waiting"]
            or any(answer.done() for answer in answers)
        ):
            time.sleep(0.005)
        server.process.send_signal(signal.SIGTERM)
        assert {answer.result() for answer in answers} <= {200, 504}
    assert server.process.wait(20) == 0
    text = log.read_text()
    assert "some words" not in text
    assert KEY not in text
    assert "Traceback" not in text


def test_a_port_in_use_and_unknown_hosts_are_refused() -> None:
    with bind("127.0.0.1", 0, public=False) as first:
        port = first.getsockname()[1]
        first.listen()
        with pytest.raises(ConfigError, match="in use; give another port"):
            bind("127.0.0.1", port, public=False)
    with pytest.raises(ConfigError, match=r"--host no\.such\.host\.invalid: "):
        bind("no.such.host.invalid", 1, public=False)
    for number in (-1, 99_999):
        with pytest.raises(ConfigError, match=f"--port {number} is not a port"):
            bind("127.0.0.1", number, public=False)


def test_other_machines_are_served_only_with_a_key_or_on_request() -> None:
    with pytest.raises(ConfigError, match="--api-key-file FILE, or --no-key"):
        bind("0.0.0.0", 0, public=False)
    bind("0.0.0.0", 0, public=True).close()
    bind("localhost", 0, public=False).close()


def test_keys_come_from_files_that_only_their_owner_reads(tmp_path: Path) -> None:
    path = tmp_path / "key"
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_key(path)
    tmp_path.chmod(0o700)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_key(tmp_path)
    for content in ("", " \n", "two words", "a\nb", "ü", "x" * 5000):
        path.write_text(content)
        path.chmod(0o600)
        with pytest.raises(ConfigError, match="does not hold a key"):
            read_key(path)
    path.write_text("secret\n")
    assert read_key(path) == "secret"
    path.chmod(0o644)
    with pytest.raises(ConfigError, match=r"mode 644\); run: chmod 600") as refused:
        read_key(path)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_queue": 0},
        {"max_texts": -1},
        {"timeout": 0},
        {"timeout": float("nan")},
        {"cors": ("example.org",)},
        {"cors": ("https://example.org/path",)},
    ],
)
def test_settings_are_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"--{next(iter(wrong)).replace('_', '-')}"):
        ServeSettings("tiny", **wrong)  # type: ignore[arg-type]
