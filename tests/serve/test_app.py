"""The routes of the API, without a socket."""

from __future__ import annotations

import base64
import copy
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from starlette.testclient import TestClient

from simcse_kit import SentenceEncoder
from simcse_kit.errors import ConfigError, DataError
from simcse_kit.search import Document, Hit, IndexSettings, SearchIndex
from simcse_kit.serve import service
from simcse_kit.serve.app import create_app
from simcse_kit.serve.engine import EncoderEngine
from simcse_kit.serve.settings import ServeSettings
from simcse_kit.utils.prompt_choice import PromptChoice

TEXTS = ["A man plays guitar.", "Prices rose.", "It rains, and it rains.", "ü 漢字"]


class FakeIndex:
    """Notes what it is asked, and finds one text for each query."""

    broken = False
    manifest = SimpleNamespace(encoder=SimpleNamespace(query_prompt=""))

    def __init__(self) -> None:
        self.asked: list[tuple[NDArray[np.float32], int, float | None]] = []

    def __len__(self) -> int:
        return 7

    def refresh(self) -> bool:
        if self.broken:
            raise DataError("a file has changed", file="/secret/index")
        return False

    def search_vectors(
        self,
        vectors: NDArray[np.float32],
        top_k: int = 5,
        threshold: float | None = None,
        **_: Any,
    ) -> list[list[Hit]]:
        self.asked.append((vectors, top_k, threshold))
        if top_k == 999:
            raise ConfigError("not so many")
        return [[Hit(str(row), "found", 0.5, {"page": row})] for row in range(len(vectors))]


@pytest.fixture(scope="module")
def engine(tiny_encoder_dir: Path) -> EncoderEngine:
    return EncoderEngine(SentenceEncoder.load(tiny_encoder_dir))


@pytest.fixture(scope="module")
def index() -> FakeIndex:
    return FakeIndex()


@pytest.fixture(scope="module")
def client(engine: EncoderEngine, index: FakeIndex) -> Iterator[TestClient]:
    settings = ServeSettings("tiny", max_texts=8, max_tokens=200, max_bytes=20_000)
    with TestClient(create_app(engine, settings, index)) as client:
        yield client


def embeddings(client: TestClient, **body: Any) -> Any:
    return client.post("/v1/embeddings", json={"model": "tiny", **body})


def vectors(answer: Any) -> NDArray[np.float32]:
    assert answer.status_code == 200, answer.text
    rows = answer.json()["data"]
    assert [row["index"] for row in rows] == list(range(len(rows)))
    return np.array([row["embedding"] for row in rows], np.float32)


def test_embeddings_equal_those_of_encode(client: TestClient, engine: EncoderEngine) -> None:
    expected = engine.encoder.encode(TEXTS)
    np.testing.assert_allclose(vectors(embeddings(client, input=TEXTS)), expected, atol=1e-5)
    one = vectors(embeddings(client, input=TEXTS[0], user="somebody"))
    np.testing.assert_allclose(one, expected[:1], atol=1e-5)
    few = engine.encoder.encode(TEXTS, truncate_dim=3)
    short = vectors(embeddings(client, input=TEXTS, dimensions=3))
    np.testing.assert_allclose(short, few, atol=1e-5)


@pytest.mark.parametrize("dimensions", [None, 3])
def test_vectors_have_unit_length_if_wanted(engine: EncoderEngine, dimensions: int | None) -> None:
    made = EncoderEngine(engine.encoder, normalize=True)
    with TestClient(create_app(made, ServeSettings("tiny"))) as client:
        body = {"input": TEXTS} | ({"dimensions": dimensions} if dimensions else {})
        found = [row["embedding"] for row in embeddings(client, **body).json()["data"]]
    expected = engine.encoder.encode(TEXTS, normalize=True, truncate_dim=dimensions)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_token_ids_give_the_vectors_of_their_texts(
    client: TestClient, engine: EncoderEngine
) -> None:
    rows, _ = engine.encoder.tokenize(TEXTS)
    answer = embeddings(client, input=rows)
    expected = engine.encoder.encode(TEXTS)
    np.testing.assert_allclose(vectors(answer), expected, atol=1e-5)
    tokens = sum(map(len, rows))
    assert answer.json()["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    single = vectors(embeddings(client, input=rows[0]))
    np.testing.assert_allclose(single, expected[:1], atol=1e-5)


def test_base64_holds_the_same_numbers(client: TestClient) -> None:
    answer = embeddings(client, input=TEXTS, encoding_format="base64").json()
    rows = [np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in answer["data"]]
    np.testing.assert_allclose(rows, vectors(embeddings(client, input=TEXTS)), atol=1e-6)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ("{", 400, "the body is not valid JSON"),
        ("", 400, "the body is not valid JSON"),
        ("[]", 400, "Input should be an object"),
        ('{"model": "tiny", "input": NaN}', 400, "input: it is a number"),
        ('{"model": "tiny", "input": "\\ud800"}', 400, "the body is not valid JSON"),
        (b'{"model": "tiny", "input": "\xff"}', 400, "the body is not valid JSON"),
        ('{"input": "a"}', 400, "model: Field required"),
        ('{"model": "tiny"}', 400, "input: Field required"),
        ('{"model": "tiny", "input": []}', 400, "it is empty"),
        ('{"model": "tiny", "input": ["a", ""]}', 400, "text 1 is empty"),
        ('{"model": "tiny", "input": ["a", 1]}', 400, "item 1 is a number, not a string"),
        ('{"model": "tiny", "input": [null]}', 400, "item 0 is null"),
        ('{"model": "tiny", "input": [[1], []]}', 400, "item 1 has no token ids"),
        ('{"model": "tiny", "input": [1, true]}', 400, "item 0 holds true"),
        ('{"model": "tiny", "input": [99999]}', 400, "outside 0 to"),
        ('{"model": "tiny", "input": [-1]}', 400, "outside 0 to"),
        ('{"model": "tiny", "input": "a", "dimensions": 0}', 400, "dimensions: "),
        ('{"model": "tiny", "input": "a", "dimensions": 9999}', 400, "9999 dimensions are wanted"),
        ('{"model": "tiny", "input": "a", "encoding_format": "hex"}', 400, "'float' or 'base64'"),
        ('{"model": "gpt", "input": "a"}', 404, "the model 'gpt' is not served here; use 'tiny'"),
        (f'{{"model": "tiny", "input": {["a"] * 9}}}'.replace("'", '"'), 413, "has 9 texts"),
        (f'{{"model": "tiny", "input": {["a b c d " * 9] * 8}}}'.replace("'", '"'), 413, "tokens"),
        (f'{{"model": "tiny", "input": {[1] * 300}}}', 400, "at most"),
        (" " * 20_001, 413, "larger than 20,000 bytes"),
    ],
)
def test_bad_bodies_are_refused_with_a_reason(
    client: TestClient, body: str | bytes, status: int, message: str
) -> None:
    answer = client.post(
        "/v1/embeddings", content=body, headers={"Content-Type": "application/json"}
    )
    error = answer.json()["error"]
    assert (answer.status_code, message in error["message"]) == (status, True), answer.text
    assert set(error) == {"message", "type", "param", "code"}
    assert embeddings(client, input="a").status_code == 200


def test_chunked_bodies_are_bounded_too(client: TestClient) -> None:
    chunks = (b" " * 1000 for _ in range(100))
    answer = client.post(
        "/v1/embeddings", content=chunks, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 413


def test_bodies_of_other_types_are_refused(client: TestClient) -> None:
    answer = client.post("/v1/embeddings", content="{}", headers={"Content-Type": "text/plain"})
    assert answer.status_code == 415


def test_wrong_routes_are_answered_in_the_same_form(client: TestClient) -> None:
    assert client.get("/v1/nothing").status_code == 404
    answer = client.get("/v1/embeddings")
    assert answer.status_code == 405
    assert "GET /v1/embeddings" in answer.json()["error"]["message"]


def test_models_are_listed(client: TestClient, engine: EncoderEngine) -> None:
    card = client.get("/v1/models").json()["data"][0]
    assert card == client.get("/v1/models/tiny").json()
    assert (card["id"], card["dimensions"]) == ("tiny", engine.encoder.embedding_dim)
    assert client.get("/v1/models/other").status_code == 404


def test_similarities_equal_those_of_the_encoder(client: TestClient, engine: EncoderEngine) -> None:
    one = client.post("/v1/similarity", json={"texts": TEXTS}).json()
    np.testing.assert_allclose(
        one["similarity"], engine.encoder.similarity(TEXTS, TEXTS), atol=1e-5
    )
    two = client.post("/v1/similarity", json={"texts": TEXTS[0], "others": TEXTS}).json()
    np.testing.assert_allclose(
        two["similarity"], engine.encoder.similarity(TEXTS[:1], TEXTS), atol=1e-5
    )
    refused = client.post("/v1/similarity", json={"texts": [1]})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "texts")


def test_searches_give_vectors_of_unit_length_to_the_index(
    client: TestClient, index: FakeIndex
) -> None:
    body = {"query": TEXTS[:2], "top_k": 3, "threshold": -0.5}
    answer = client.post("/v1/search", json=body).json()
    asked, top_k, threshold = index.asked[-1]
    np.testing.assert_allclose(np.linalg.norm(asked, axis=1), 1, atol=1e-5)
    assert (top_k, threshold) == (3, -0.5)
    assert answer["data"][1] == {
        "object": "search_result",
        "index": 1,
        "hits": [{"id": "1", "text": "found", "cosine": 0.5, "metadata": {"page": 1}}],
    }


def test_searches_equal_those_of_the_index(engine: EncoderEngine) -> None:
    documents = [Document(text, metadata={"page": page}) for page, text in enumerate(TEXTS)]
    index = SearchIndex.build(engine.encoder, documents)
    with TestClient(create_app(engine, ServeSettings("tiny"), index)) as client:
        for options in ({}, {"hybrid": True}, {"hybrid": True, "top_k": 2, "threshold": -1.0}):
            answer = client.post("/v1/search", json={"query": "Prices rose.", **options}).json()
            (expected,) = index.search(["Prices rose."], **options)
            hits = answer["data"][0]["hits"]
            assert [hit["id"] for hit in hits] == [hit.id for hit in expected]
            assert [hit["metadata"] for hit in hits] == [hit.metadata for hit in expected]
            assert [hit.get("score") for hit in hits] == [hit.score for hit in expected]
        refused = client.post("/v1/search", json={"query": "a", "filter": "page > 1"})
    assert (refused.status_code, "milvus" in refused.text) == (400, True), refused.text


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"query": "  "}, "text 0 is blank"),
        ({"query": []}, "at least 1 item"),
        ({"query": "a", "top_k": 0}, "top_k"),
        ({"query": "a", "top_k": 10**6}, "top_k"),
        ({"query": "a", "top_k": 999}, "not so many"),
        ({"query": "a", "threshold": 1.5}, "threshold"),
        ({"query": "a", "threshold": "x"}, "threshold"),
    ],
)
def test_bad_searches_are_refused(client: TestClient, body: Any, message: str) -> None:
    answer = client.post("/v1/search", json=body)
    assert (answer.status_code, message in answer.text) == (400, True), answer.text


def test_a_replaced_index_is_searched_with_its_own_prompt(
    engine: EncoderEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_REFRESH_EVERY", 0.0)
    index = SearchIndex.build(engine.encoder, TEXTS, tmp_path)
    with TestClient(create_app(engine, ServeSettings("tiny"), index)) as client:
        for prompt in ("", "It rains: "):
            settings = IndexSettings(prompts=PromptChoice((prompt, "")), overwrite=True)
            replaced = SearchIndex.build(engine.encoder, TEXTS, tmp_path, settings)
            answer = client.post("/v1/search", json={"query": "Prices rose.", "top_k": 4}).json()
            (expected,) = replaced.search(["Prices rose."], 4)
            found = [hit["cosine"] for hit in answer["data"][0]["hits"]]
            np.testing.assert_allclose(found, [hit.cosine for hit in expected], atol=1e-6)


def test_a_damaged_index_is_reported_without_its_folder(engine: EncoderEngine) -> None:
    index = FakeIndex()
    index.broken = True
    with TestClient(create_app(engine, ServeSettings("tiny"), index)) as client:
        answer = client.post("/v1/search", json={"query": "a"})
    assert answer.status_code == 503
    assert "secret" not in answer.text


def test_a_key_is_required_where_texts_are(engine: EncoderEngine) -> None:
    settings = ServeSettings("tiny", key="s3cret", cors=("https://example.org",))
    assert "s3cret" not in repr(settings)
    with TestClient(create_app(engine, settings)) as client:
        for path in ("/", "/health", "/health/live", "/health/ready", "/openapi.json"):
            assert client.get(path).status_code == 200
        for path in ("/v1/models", "/metrics", "/v1/nothing"):
            for key in ("", "Bearer", "Bearer x", "s3cret", "Basic s3cret"):
                assert client.get(path, headers={"Authorization": key}).status_code == 401
        good = {"Authorization": "bearer s3cret"}
        assert client.get("/v1/models", headers=good).status_code == 200
        assert client.post("/v1/search", json={"query": "a"}, headers=good).status_code == 404
        origin = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
        allowed = client.options("/v1/embeddings", headers=origin).headers
        assert allowed["Access-Control-Allow-Origin"] == "https://example.org"


def test_a_full_queue_and_a_late_answer_are_reported(engine: EncoderEngine) -> None:
    slow, opened = copy.copy(engine), threading.Event()

    def vectors(pieces: Any) -> Any:
        assert opened.wait(10)
        return engine.vectors(pieces)

    slow.vectors = vectors  # type: ignore[method-assign]
    settings = ServeSettings("tiny", max_queue=1, timeout=1.0)
    with TestClient(create_app(slow, settings)) as client, ThreadPoolExecutor(1) as pool:
        first = pool.submit(embeddings, client, input="a")
        while client.get("/health").json()["waiting"] == 0:
            pass
        refused = embeddings(client, input="b")
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
        assert first.result().status_code == 504
        # The worker began its batch a little after the request came.
        answers = (client.get("/health/ready") for _ in range(200) if not opened.wait(0.01))
        health = next((answer for answer in answers if answer.status_code != 200), None)
        assert health is not None
        assert (health.status_code, health.json()["status"]) == (503, "stuck")
        opened.set()
        assert embeddings(client, input="c").status_code == 200


def test_pages_of_other_origins_are_not_allowed_by_default(client: TestClient) -> None:
    answer = client.get("/v1/models", headers={"Origin": "https://example.org"})
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_the_page_has_a_strict_policy_and_its_folder_is_not_left(client: TestClient) -> None:
    for path in ("/", "/static/index.html"):
        policy = client.get(path).headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
    assert client.get("/static/%2e%2e/app.py").status_code == 404


def test_metrics_count_requests_and_tokens(client: TestClient) -> None:
    embeddings(client, input="a")
    client.get("/some/path/of/an/attacker")
    text = client.get("/metrics").text
    assert 'simcse_requests_total{path="/v1/embeddings",status="200"}' in text
    assert 'path="other",status="404"' in text
    assert "attacker" not in text
    assert "simcse_queue 0.0" in text
    assert "simcse_batch_tokens_count" in text


def test_the_schema_describes_the_bodies(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    content = paths["/v1/embeddings"]["post"]["requestBody"]["content"]
    assert "encoding_format" in content["application/json"]["schema"]["properties"]
    assert "http" not in client.get("/").text
