"""Middleware: check of the API key, and measurement of every request."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from simcse_kit.serve.errors import RequestError, error_answer
from simcse_kit.serve.metrics import ServerMetrics

__all__ = ["Gate"]

# The page and its files are public; its requests carry the key.
_OPEN = ("/", "/openapi.json", "/health", "/health/live", "/health/ready")
_OPEN_BELOW = "/static/"


class Gate:
    """Refuse requests without the key, and count and time all requests.

    Args:
        app: The application.
        key: API key; None if none is needed.
        metrics: Where requests are counted.
        paths: Paths that are counted by name; all others are counted together, so that clients
            cannot create any number of counters.
    """

    def __init__(
        self, app: ASGIApp, *, key: str | None, metrics: ServerMetrics, paths: Collection[str]
    ):
        self._app = app
        # Digests have equal lengths, so the time of a comparison shows nothing about the key.
        self._digest = None if key is None else hashlib.sha256(key.encode()).digest()
        self._metrics = metrics
        self._paths = frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 500
        path: str = scope["path"]

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if self._admits(path, scope):
                await self._app(scope, receive, noting)
            else:
                await _REFUSED(scope, receive, noting)
        finally:
            name = path if path in self._paths else "other"
            self._metrics.note_request(name, status, time.perf_counter() - began)

    def _admits(self, path: str, scope: Scope) -> bool:
        if self._digest is None or path in _OPEN or path.startswith(_OPEN_BELOW):
            return True
        given = dict(scope["headers"]).get(b"authorization", b"")
        scheme, _, key = given.partition(b" ")
        digest = hashlib.sha256(key.strip()).digest()
        return hmac.compare_digest(digest, self._digest) and scheme.lower() == b"bearer"


_REFUSED = error_answer(
    RequestError(
        401,
        "the API key is missing or wrong; send the header 'Authorization: Bearer KEY'",
        code="invalid_api_key",
        headers={"WWW-Authenticate": "Bearer"},
    )
)
