"""The application: the routes of the API."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import torch
from anyio import to_thread
from fastapi import FastAPI, Request
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from simcse_kit import __version__
from simcse_kit.encoder.similarity import cosines
from simcse_kit.search import SearchIndex
from simcse_kit.serve.engine import EncoderEngine
from simcse_kit.serve.errors import RequestError, error_answer, json_answer
from simcse_kit.serve.gate import Gate
from simcse_kit.serve.page import add_page
from simcse_kit.serve.requests import EmbeddingsRequest, SearchRequest, SimilarityRequest
from simcse_kit.serve.service import Service
from simcse_kit.serve.settings import ServeSettings

__all__ = ["create_app"]

# Entries of a similarity matrix that one request may ask for.
_MOST_CELLS = 1_000_000

Body = TypeVar("Body", bound=BaseModel)


def create_app(
    engine: EncoderEngine,
    settings: ServeSettings,
    index: SearchIndex | None = None,
) -> FastAPI:
    """Create the application of a server.

    Args:
        engine: Encoder.
        settings: Limits and access rules.
        index: Index for ``/v1/search``, built by the same encoder.
    """
    service = Service(engine, settings, index)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        service.batcher.start()
        yield
        service.batcher.stop()

    app = FastAPI(
        title="simcse serve",
        description="Sentence vectors, similarity and search.",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # the pages of FastAPI load scripts from other hosts
        redoc_url=None,
    )
    _add_api(app, service)
    _add_status(app, service)
    add_page(app)
    paths = {getattr(route, "path", "") for route in app.routes}
    app.add_middleware(Gate, key=settings.key, metrics=service.metrics, paths=paths)
    if settings.cors:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
        )
    return app


def _add_post(
    app: FastAPI,
    path: str,
    service: Service,
    kind: type[Body],
    answer: Callable[[Request, Body, float], Awaitable[Response]],
) -> None:
    """Add a route whose body is read, checked and released around the answer.

    FastAPI would read the whole body first, whatever its size.
    """

    async def handle(request: Request) -> Response:
        deadline = asyncio.get_running_loop().time() + service.settings.timeout
        body, size = await service.bodies.read(request, kind, deadline)
        try:
            return await answer(request, body, deadline)
        finally:
            service.bodies.release(size)

    content = {"application/json": {"schema": kind.model_json_schema()}}
    app.add_api_route(
        path,
        handle,
        methods=["POST"],
        name=path,
        summary=(kind.__doc__ or "").removesuffix("."),
        response_class=Response,
        openapi_extra={"requestBody": {"required": True, "content": content}},
    )


def _add_api(app: FastAPI, service: Service) -> None:
    async def embeddings(request: Request, body: EmbeddingsRequest, deadline: float) -> Response:
        service.check_model(body.model)
        if not isinstance(body.input[0], str):
            service.check_ids(body.input)
        options = service.options(body.dimensions)
        vectors, usage = await service.vectors(request, body.input, options, deadline)
        rows: Any = vectors
        if body.encoding_format == "base64":
            rows = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in vectors]
        data = [
            {"object": "embedding", "index": number, "embedding": row}
            for number, row in enumerate(rows)
        ]
        name = service.settings.name
        return json_answer({"object": "list", "data": data, "model": name, "usage": usage})

    async def similarity(request: Request, body: SimilarityRequest, deadline: float) -> Response:
        others = body.others or []
        cells = len(body.texts) * len(others or body.texts)
        if cells > _MOST_CELLS:
            raise RequestError(
                413, f"{cells:,} pairs are wanted; at most {_MOST_CELLS:,} are allowed"
            )
        texts = [*body.texts, *others]
        vectors, usage = await service.vectors(request, texts, service.options(), deadline)
        left = torch.from_numpy(vectors[: len(body.texts)])
        right = torch.from_numpy(vectors[len(body.texts) :]) if others else left
        matrix = await to_thread.run_sync(cosines, left, right)
        name = service.settings.name
        return json_answer({"similarity": matrix, "model": name, "usage": usage})

    async def search(request: Request, body: SearchRequest, deadline: float) -> Response:
        index = await to_thread.run_sync(service.current_index)
        options = service.engine.query_options(index.manifest.encoder.query_prompt)
        vectors, usage = await service.vectors(request, body.query, options, deadline)
        found = await to_thread.run_sync(service.search, vectors, body)
        data = [
            {
                "object": "search_result",
                "index": number,
                "hits": [hit.to_dict() for hit in hits],
            }
            for number, hits in enumerate(found)
        ]
        name = service.settings.name
        return json_answer({"object": "list", "data": data, "model": name, "usage": usage})

    _add_post(app, "/v1/embeddings", service, EmbeddingsRequest, embeddings)
    _add_post(app, "/v1/similarity", service, SimilarityRequest, similarity)
    _add_post(app, "/v1/search", service, SearchRequest, search)


def _add_status(app: FastAPI, service: Service) -> None:
    @app.get("/v1/models")
    async def models() -> Response:
        """List the model."""
        return json_answer({"object": "list", "data": [service.card()]})

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        """Describe the model."""
        service.check_model(name)
        return json_answer(service.card())

    @app.get("/health/live")
    async def live() -> Response:
        """Say that the process runs."""
        return json_answer({"status": "ok"})

    @app.get("/health")
    @app.get("/health/ready", operation_id="ready")
    async def ready() -> Response:
        """Say whether requests are answered."""
        health = service.health()
        return json_answer(health, 200 if health["status"] == "ok" else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        """Return measurements in Prometheus' text format."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    @app.exception_handler(RequestError)
    async def refuse(_request: Request, error: RequestError) -> Response:
        return error_answer(error)

    @app.exception_handler(HTTPException)
    async def refuse_route(request: Request, error: HTTPException) -> Response:
        message = f"{request.method} {request.url.path:.100}: {error.detail}"
        return error_answer(RequestError(error.status_code, message, headers=error.headers))

    @app.exception_handler(Exception)
    async def fail(_request: Request, _error: Exception) -> Response:
        return error_answer(RequestError(500, "the server failed; its log says why"))
