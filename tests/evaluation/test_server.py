"""Misbehaving embeddings servers, on a real socket."""

from __future__ import annotations

import base64
import json
import logging
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import numpy as np
import pytest

from simcse_kit.errors import ConfigError, ModelError
from simcse_kit.evaluation.server import EmbeddingServer, _seconds
from simcse_kit.evaluation.server_answers import AnswerError, most_bytes, read_vectors

KEY = "sk-verysecret-0123456789"
TEXTS = ["one", "two"]

Handler = socketserver.StreamRequestHandler
Behaviour = Callable[[Handler], None]


class Requests(list[bytes]):
    """What a server was sent, head and body of each request."""

    url = ""


@contextmanager
def serving(behaviour: Behaviour) -> Iterator[Requests]:
    """A server whose answers are what ``behaviour`` writes."""
    seen = Requests()

    class Once(Handler):
        def handle(self) -> None:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                line = self.rfile.readline()
                if not line:
                    return
                head += line
            length = int(head.lower().partition(b"content-length:")[2].split()[0])
            seen.append(head + self.rfile.read(length))
            with suppress(OSError):  # the client has had enough
                behaviour(self)

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True
        block_on_close = False

    with Server(("127.0.0.1", 0), Once) as server:
        seen.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield seen
        server.shutdown()


def answer(
    body: bytes | str | Any, status: str = "200 OK", length: int | None = None, head: str = ""
) -> Behaviour:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()

    def write(handler: Handler) -> None:
        size = len(content) if length is None else length
        top = f"HTTP/1.1 {status}\r\nContent-Length: {size}\r\nConnection: close\r\n{head}\r\n"
        handler.wfile.write(top.encode() + content)

    return write


def rows(*vectors: Any, first: int = 0) -> dict[str, Any]:
    data = [{"index": first + at, "embedding": each} for at, each in enumerate(vectors)]
    return {"data": data}


def ask(url: str, **options: Any) -> np.ndarray:
    settings = {"key": KEY, "tries": 1, "timeout": 5.0, "pause": 0.01} | options
    return EmbeddingServer("m", url, **settings).encode(TEXTS)


def refusal(behaviour: Behaviour, **options: Any) -> str:
    """Return the one-line error, and check that neither it nor its causes contain the key."""
    with serving(behaviour) as server, pytest.raises(ModelError) as caught:
        ask(server.url, **options)
    said = str(caught.value)
    assert "\n" not in said
    assert said.isprintable()
    assert len(said) < 600
    error: BaseException | None = caught.value
    while error is not None:
        assert KEY not in repr(error)
        error = error.__cause__ or error.__context__
    return said


# ---------------------------------------------------------------- where the key goes


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See", "307 Temp", "308 Perm"])
def test_the_key_follows_no_redirect(status: str) -> None:
    with serving(answer(rows([1.0], [2.0]))) as other:
        said = refusal(answer(b"", status, head=f"Location: {other.url}/x?{KEY}\r\n"))
        assert not other
    assert f"{status[:3]}, a redirect to http://127.0.0.1" in said


@pytest.mark.parametrize(
    ("target", "named"),
    [
        ("ftp://files.example/x", "ftp://files.example"),
        ("/v2", "the same host"),
        ("http://" + "a" * 3000, "http://aaa"),
        ("", "nowhere"),
    ],
)
def test_odd_redirects_name_their_target(target: str, named: str) -> None:
    said = refusal(answer(b"", "302 Found", head=f"Location: {target}\r\n"))
    assert f"a redirect to {named}" in said


def test_a_redirect_that_is_no_address_steers_no_terminal() -> None:
    refusal(answer(b"", "302 Found", head="Location: http://\x1b[2J/\r\n"))


def test_the_key_is_sent_to_the_host_and_masked_in_what_it_echoes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    escaped = KEY.replace("s", "\\u0073", 1)
    for body in (
        f"wrong key {KEY}\x1b]0;title\x07".encode(),
        f'{{"error": {{"message": "Bearer {escaped} \\u202e"}}}}'.encode(),
        b"x" * (4000 - len(KEY) // 2) + KEY.encode() * 3,
        b" " * (4000 - len(KEY) + 1) + KEY.encode(),
    ):
        with caplog.at_level(logging.DEBUG):
            said = refusal(answer(body, "500 Oops"), tries=2)
        assert KEY[:-1] not in said
        assert KEY[:-1] not in caplog.text
        assert "500" in said
    with serving(answer(rows([1.0], [2.0]))) as server:
        ask(server.url)
    assert f"authorization: bearer {KEY}" in server[0].decode().lower()


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://h/v1", "file:///etc/passwd", "localhost:8000", "http://", "http://[::1", ""),
        *("http://h:99999999/v1", "http://h\n/v1", "gopher://h", "sk-a-key-by-mistake"),
    ],
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(ConfigError, match="OPENAI_BASE_URL is not an http address") as caught:
        EmbeddingServer("m", url)
    assert "mistake" not in str(caught.value)


def test_secrets_in_the_wrong_place() -> None:
    with pytest.raises(ConfigError, match="contains a user name or password") as caught:
        EmbeddingServer("m", "http://user:hunter2@host/v1")
    assert "hunter2" not in str(caught.value)
    for key in ("a\nb", "a b", "ключ"):
        with pytest.raises(ConfigError, match="spaces or signs that are not ASCII") as caught:
            EmbeddingServer("m", "http://h/v1", key=key)
        assert key not in str(caught.value)
    # The end of a line is what a file of a key often has.
    with serving(answer(rows([1.0], [2.0]))) as server:
        ask(server.url + "/?api-version=1", key="abc\n")
    assert server[0].startswith(b"POST /v1/embeddings?api-version=1 ")


def test_a_proxy_of_the_environment_does_not_see_the_key_of_plain_http(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(answer(rows([1.0], [2.0]))) as proxy, serving(answer(rows([3.0], [4.0]))) as ours:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        assert ask(ours.url)[0, 0] == 3.0
        assert not proxy
    caplog.clear()
    EmbeddingServer("m", "http://127.0.0.2/v1", key=KEY).encode([])
    assert "sent without encryption" in caplog.text


# ---------------------------------------------------------------- what it answers

GOOD = [1.0, 2.0]
ANSWERS: dict[str, tuple[bytes | Any, str]] = {
    "no JSON": (b"<html>", "not complete JSON"),
    "half of it": (json.dumps(rows(GOOD, GOOD)).encode()[:-4], "not complete JSON"),
    "nothing": (b"", "not complete JSON"),
    "bytes": (b"\xff\xfe\x00\x01", "not complete JSON"),
    "deep": (b"[" * 60_000, "not complete JSON"),
    "a deep embedding": (
        b'{"data": [{"index": 0, "embedding": ' + b"[" * 30_000 + b"]" * 30_000 + b"}]}",
        "not complete JSON",
    ),
    "a list": ([1, 2], "is not 2 embeddings"),
    "no data": ({"vectors": []}, "is not 2 embeddings"),
    "data of numbers": ({"data": [1, 2]}, "is not 2 embeddings"),
    "no embedding": ({"data": [{"index": 0}, {"index": 1}]}, "is not 2 embeddings"),
    "one of two": (rows(GOOD), "1 embeddings for 2 texts"),
    "three of two": (rows(GOOD, GOOD, GOOD), "3 embeddings for 2 texts"),
    "other places": (rows(GOOD, GOOD, first=1), "index is 2, not 0 to 1"),
    "one place twice": ({"data": 2 * [{"index": 0, "embedding": GOOD}]}, "have the index 0"),
    "no place": ({"data": 2 * [{"embedding": GOOD}]}, "index is missing"),
    "a true place": ({"data": 2 * [{"index": True, "embedding": GOOD}]}, "index is True"),
    "a far place": ({"data": 2 * [{"index": 10**400, "embedding": GOOD}]}, "index is inf"),
    "words": (rows(["a", "b"], GOOD), "values that are not numbers"),
    "truths": (rows([True, False], GOOD), "values that are not numbers"),
    "a matrix": (rows([GOOD], GOOD), "values that are not numbers"),
    "NaN": (b'{"data": [{"index": 0, "embedding": [NaN]}]}', "not complete JSON"),
    "Infinity": (b'{"data": [{"index": 0, "embedding": [-Infinity]}]}', "not complete JSON"),
    "1e999": (
        b'{"data": [{"index": 0, "embedding": [1e999]}, {"index": 1, "embedding": [1]}]}',
        "NaN, infinity",
    ),
    "400 digits": (rows([10**400], [1]), "NaN, infinity"),
    "beyond float32": (rows([1e39], [1]), "NaN, infinity"),
    "empty embeddings": (rows([], []), "0 numbers; 1 to"),
    "different lengths": (rows(GOOD, [1.0]), "one embedding has 1 numbers, another 2"),
    "a word": (rows("x", "y"), "a string, but not base64"),
    "half a number": (rows(base64.b64encode(b"12345").decode(), GOOD), "is cut off"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_that_hold_no_vectors(name: str) -> None:
    body, said = ANSWERS[name]
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(AnswerError, match=said):
        read_vectors(content, 2, None)


def test_such_an_answer_is_one_line_and_is_not_asked_for_again() -> None:
    with serving(answer(b"<html>")) as server:
        with pytest.raises(ModelError, match="embeddings of 'm': the answer is not complete JSON"):
            ask(server.url, tries=5)
        assert len(server) == 1


def test_base64_and_any_order() -> None:
    vectors = np.arange(6, dtype="<f4").reshape(2, 3)
    one, two = (base64.b64encode(vector.tobytes()).decode() for vector in vectors)
    body = {"data": [{"index": 1, "embedding": two}, {"index": 0, "embedding": one}]}
    found = read_vectors(json.dumps(body).encode(), 2, None)
    np.testing.assert_array_equal(found, vectors)
    assert found.dtype == np.float32


def test_dimensions_that_differ_between_requests() -> None:
    sizes = iter([3, 2])
    with (
        serving(lambda handler: answer(rows([1.0] * next(sizes)))(handler)) as server,
        pytest.raises(ModelError, match="one embedding has 2 numbers, another 3"),
    ):
        ask(server.url, batch_size=1)


# ---------------------------------------------------------------- how much and how long


def test_a_large_answer_is_not_read() -> None:
    written = [0]

    def pour(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        for _ in range(3000):  # 3 GB
            handler.wfile.write(b" " * 1_000_000)
            written[0] += 1_000_000

    assert f"larger than {most_bytes(2, None):,} bytes for 2 texts" in refusal(pour, timeout=60)
    assert written[0] < 30_000_000
    # Once the dimensions are known, less is plausible.
    assert most_bytes(2, 3) < most_bytes(2, None) / 10


def test_a_large_error_is_not_read() -> None:
    def pour(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 400 Bad\r\nConnection: close\r\n\r\n")
        for _ in range(100):
            handler.wfile.write(b"no " * 400_000)

    assert "400 no no" in refusal(pour)


def test_a_compressed_answer_is_not_unpacked() -> None:
    said = refusal(answer(b"\x1f\x8b" + b"\0" * 100, head="Content-Encoding: gzip\r\n"))
    assert "is compressed" in said


def trickle(head: bytes, count: int = 1000) -> Behaviour:
    def write(handler: Handler) -> None:
        handler.wfile.write(head)
        for _ in range(count):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.05)

    return write


@pytest.mark.long
@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1",
        b"HTTP/1.1 200 OK\r\nX: ",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 500 Oops\r\n\r\n",
    ],
    ids=["status", "header", "body", "error"],
)
def test_a_byte_now_and_then_comes_to_an_end(head: bytes) -> None:
    start = time.monotonic()
    assert "not complete after 0.5 s" in refusal(trickle(head), timeout=0.5)
    assert time.monotonic() - start < 3


@pytest.mark.long
def test_silence_comes_to_an_end() -> None:
    start = time.monotonic()
    assert "0.3 s" in refusal(lambda _: time.sleep(5), timeout=0.3, tries=2)
    assert time.monotonic() - start < 3


@pytest.mark.parametrize(
    "behaviour",
    [
        answer(b"{}", length=100),
        lambda handler: handler.wfile.write(b"nonsense\r\n\r\n"),
        lambda handler: handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 100_000),
        lambda handler: handler.connection.close(),
    ],
    ids=["a short body", "no HTTP", "many headers", "hung up"],
)
def test_what_is_no_answer_is_tried_again(behaviour: Behaviour) -> None:
    with serving(behaviour) as server:
        with pytest.raises(ModelError, match="gave no embeddings"):
            ask(server.url, tries=2)
        assert len(server) == 2


# ---------------------------------------------------------------- again


@pytest.mark.long
def test_the_wait_is_the_one_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    replies = iter(
        [
            answer(b"", "429 Slow", head="Retry-After: 0\r\n"),
            answer(b"", "503 Busy", head="Retry-After: 1\r\n"),
            answer(rows(GOOD, GOOD)),
        ]
    )
    start = time.monotonic()
    with serving(lambda handler: next(replies)(handler)) as server:
        assert ask(server.url, tries=3).shape == (2, 2)
    assert time.monotonic() - start > 1
    assert caplog.text.count("again in") == 2


def test_a_wait_that_is_too_long_is_an_error() -> None:
    slow = answer(b"later", "429 Slow", head="Retry-After: 86400\r\n")
    assert "429 later, and asks to wait 86,400 s" in refusal(slow, tries=5)


def test_retry_after_is_seconds_or_a_date() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    date = format_datetime(now + timedelta(seconds=90), usegmt=True)
    assert _seconds(date, lambda: now) == 90
    assert _seconds("7") == 7
    assert _seconds("9" * 400) > 1e8
    for nothing in ("", "-5", "soon", "\u0661", "Wed, 99 Foo 2026", "1e3"):
        assert _seconds(nothing) == 0


def test_it_runs_beside_an_event_loop() -> None:
    import asyncio

    async def in_a_notebook(url: str) -> np.ndarray:
        return ask(url)

    with serving(answer(rows(GOOD, GOOD))) as server:
        assert asyncio.run(in_a_notebook(server.url)).shape == (2, 2)
