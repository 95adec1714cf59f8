"""The page at ``/`` and its files."""

from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

__all__ = ["add_page"]

_FOLDER = Path(__file__).with_name("page")
# Only files of this server, and no inline script or style.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


class _Files(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(_HEADERS)
        return response


def add_page(app: Starlette) -> None:
    """Serve ``page/index.html`` at ``/``, and the other files of the folder below ``/static``."""

    async def index(_request: Request) -> Response:
        return FileResponse(_FOLDER / "index.html", headers=_HEADERS)

    app.add_route("/", index, methods=["GET"], include_in_schema=False)
    app.mount("/static", _Files(directory=_FOLDER), name="static")
