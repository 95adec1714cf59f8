"""Reading of request bodies, bounded in size and time."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from simcse_kit.serve.errors import RequestError, of_validation
from simcse_kit.serve.settings import ServeSettings

__all__ = ["CLIENT_GONE", "BodyReader"]

CLIENT_GONE = 499
"""Status, for the metrics only, of a request whose client went away."""

Body = TypeVar("Body", bound=BaseModel)


class BodyReader:
    """The bodies that are in memory.

    Args:
        settings: Limits.
    """

    def __init__(self, settings: ServeSettings):
        self._settings = settings
        self.held = 0

    async def read(self, request: Request, kind: type[Body], deadline: float) -> tuple[Body, int]:
        """Read, parse and check a body.

        Args:
            request: The request, of which nothing was read.
            kind: Model of the body.
            deadline: Time of the event loop at which reading ends.

        Returns:
            The body, and its size, which the caller gives back with :meth:`release`.

        Raises:
            RequestError: The body is too large, too slow, no JSON, or has another form.
        """
        media = request.headers.get("content-type", "application/json").partition(";")[0]
        if media.strip().lower() != "application/json":
            # Pages of other origins can send all types but this one without permission.
            raise RequestError(415, "the body must have the type application/json")
        size = request.headers.get("content-length", "0")
        if size.isdecimal() and int(size[:18]) > self._settings.max_bytes:
            raise self._too_large()
        content = bytearray()
        try:
            async with asyncio.timeout_at(deadline):
                async for chunk in request.stream():
                    content += chunk
                    self.held += len(chunk)
                    if len(content) > self._settings.max_bytes:
                        raise self._too_large()
                    if self.held > self._settings.max_held:
                        raise RequestError(
                            429,
                            "the server holds too many large requests; try again later",
                            code="server_busy",
                            headers={"Retry-After": "1"},
                        )
            return kind.model_validate_json(content), len(content)
        except BaseException as error:
            self.release(len(content))
            if isinstance(error, TimeoutError):
                seconds = self._settings.timeout
                raise RequestError(
                    408, f"the body was not complete after {seconds:g} s", headers=_CLOSE
                ) from None
            if isinstance(error, ClientDisconnect):
                raise RequestError(CLIENT_GONE, "the client has gone") from None
            if isinstance(error, ValidationError):
                raise of_validation(error) from None
            raise

    def release(self, size: int) -> None:
        """Note that a body is not needed any more."""
        self.held -= size

    def _too_large(self) -> RequestError:
        most = self._settings.max_bytes
        return RequestError(
            413,
            f"the body is larger than {most:,} bytes; send the texts in several requests",
            code="body_too_large",
            headers=_CLOSE,
        )


_CLOSE = {"Connection": "close"}
