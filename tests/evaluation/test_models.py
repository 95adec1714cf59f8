"""Encoders from elsewhere: an embeddings server, and sentence-transformers."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ConfigError, ModelError
from simcse_kit.evaluation.evaluate import compare, evaluate
from simcse_kit.evaluation.model_reports import compare_models, evaluate_models
from simcse_kit.evaluation.models import open_encoder
from simcse_kit.evaluation.server import EmbeddingServer
from tests.evaluation.synthetic import BagOfWords


class Server:
    """An embeddings server of bags of words; ``fails`` are status codes to answer first."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.fails: list[int] = []
        self.answer: Any = None
        outer, bag = self, BagOfWords()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.requests.append({"path": self.path, **body})
                outer.keys.append(self.headers["Authorization"])
                if outer.fails:
                    self.send_response(outer.fails.pop(0))
                    self.end_headers()
                    self.wfile.write(b'{"error":\n "no such model"}')
                    return
                rows = [
                    {"index": at, "embedding": bag.vector(text).tolist()}
                    for at, text in enumerate(body["input"])
                ]
                self.send_response(200)
                self.end_headers()
                # In the wrong order, as the API allows.
                found = {"data": rows[::-1]} if outer.answer is None else outer.answer
                self.wfile.write(json.dumps(found).encode())

            def log_message(self, *_: Any) -> None:
                pass

        self.http = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    found = Server()
    thread = threading.Thread(target=found.http.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("OPENAI_BASE_URL", found.url)
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    yield found
    found.http.shutdown()
    found.http.server_close()


TEXTS = ["the cat plays", "a dog", "river"]


def test_vectors_come_in_the_order_of_the_texts(server: Server) -> None:
    vectors = EmbeddingServer("m", server.url, batch_size=2).encode(TEXTS)
    np.testing.assert_allclose(vectors, BagOfWords().encode(TEXTS), rtol=1e-6)
    assert [request["input"] for request in server.requests] == [TEXTS[:2], TEXTS[2:]]
    assert {request["path"] for request in server.requests} == {"/v1/embeddings"}
    assert {request["model"] for request in server.requests} == {"m"}
    assert server.keys == [None, None]


def test_a_server_is_evaluated_like_an_encoder(server: Server, senteval: Path) -> None:
    theirs = evaluate(open_encoder("openai:m"), "STSB", data=senteval)
    ours = evaluate(BagOfWords(), "STSB", data=senteval)
    assert theirs.tasks["STSB"].spearman == pytest.approx(ours.tasks["STSB"].spearman)
    assert set(server.keys) == {"Bearer secret"}


def test_what_may_pass_is_tried_again(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.fails = [503, 429]
    encoder = EmbeddingServer("m", server.url, pause=0.01)
    assert encoder.encode(["a"]).shape == (1, 16)
    assert len(server.requests) == 3
    assert caplog.text.count("again in") == 2


def test_what_does_not_pass_is_one_line(server: Server) -> None:
    server.fails = [404]
    with pytest.raises(ModelError, match=r"no embeddings of 'm': 404 .*no such model") as caught:
        EmbeddingServer("m", server.url).encode(["a"])
    assert "\n" not in str(caught.value)
    assert len(server.requests) == 1
    server.fails = [500, 500]
    with pytest.raises(ModelError, match="500"):
        EmbeddingServer("m", server.url, tries=2, pause=0.01).encode(["a"])


def test_nobody_there() -> None:
    with pytest.raises(ModelError, match="gave no embeddings of 'm'"):
        EmbeddingServer("m", "http://127.0.0.1:9/v1", tries=1).encode(["a"])
    with pytest.raises(
        ConfigError, match="OPENAI_BASE_URL is not an http address; give http://HOST/v1"
    ):
        EmbeddingServer("m", "localhost:8000")
    with pytest.raises(ConfigError, match="both must be 1 or more"):
        EmbeddingServer("m", "http://h/v1", batch_size=0)
    with pytest.raises(ConfigError, match="has its own pooling"):
        open_encoder("openai:m", pooling="cls")


def test_sentence_transformers_models(tiny_encoder_dir: Path, tmp_path: Path) -> None:
    encoder = SentenceEncoder.load(tiny_encoder_dir, pooling="mean")
    encoder.save(tmp_path / "ours")
    theirs = open_encoder(f"st:{tmp_path / 'ours'}", device="cpu")
    texts = ["the cat sat", "a dog ran on the mat"]
    np.testing.assert_allclose(theirs.encode(texts), encoder.encode(texts), atol=1e-5)
    with pytest.raises(ModelError, match="sentence-transformers cannot open"):
        open_encoder(f"st:{tmp_path / 'absent'}")


@pytest.mark.parametrize(
    "use",
    [
        lambda device: open_encoder("mini", device=device),
        lambda device: open_encoder("st:absent", device=device),
        lambda device: evaluate("mini", "absent.tsv", device=device),
        lambda device: compare(["mini", "mini"], [("a", "b", 1.0)] * 3, device=device),
        lambda device: evaluate_models([("mini", None)], "absent.tsv", device=device),
        lambda device: compare_models([["mini"], ["mini"]], "absent.tsv", device=device),
    ],
)
def test_absent_devices_are_refused_before_data_and_models_are_read(
    use: Callable[[str], Any],
) -> None:
    with pytest.raises(ConfigError, match="device 'cuda:99' cannot be used"):
        use("cuda:99")
