"""Errors of requests, in the form of OpenAI's API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from pydantic import ValidationError
from starlette.responses import Response

__all__ = ["RequestError", "error_answer", "json_answer", "of_validation"]


class RequestError(Exception):
    """A request that cannot be answered.

    Args:
        status: HTTP status.
        message: What is wrong and what is allowed; for the client.
        param: Field of the request that is wrong.
        code: Short name of the error.
        headers: Further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = headers


def json_answer(
    content: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Write an answer as JSON; rows of NumPy arrays become lists."""
    options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
    body = orjson.dumps(content, default=str, option=options)
    return Response(body, status, headers, media_type="application/json")


def error_answer(error: RequestError) -> Response:
    """Write the answer for an error."""
    kind = "server_error" if error.status >= 500 else "invalid_request_error"
    kind = {401: "authentication_error", 429: "rate_limit_error"}.get(error.status, kind)
    body = {"message": error.message, "type": kind, "param": error.param, "code": error.code}
    return json_answer({"error": body}, error.status, error.headers)


def of_validation(error: ValidationError) -> RequestError:
    """Convert the first problem that pydantic found."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "json_invalid":
        return RequestError(400, f"the body is not valid JSON: {message}", code="invalid_json")
    param = str(first["loc"][0]) if first["loc"] else None
    return RequestError(400, f"{place}: {message}" if place else message, param=param)
