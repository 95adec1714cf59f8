"""The process of the server: its socket, its signals and its end."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

import uvicorn
from starlette.types import ASGIApp

from simcse_kit.errors import ConfigError

__all__ = ["bind", "end_on_signals", "run"]

# Seconds between requests of a connection after which it is closed.
_KEEP_ALIVE = 65
_BACKLOG = 2048
# Bytes of the head of a request.
_HEAD = 65_536
# Seconds that the end of the server waits for requests in addition to their own timeout.
_LONGER = 5


def bind(host: str, port: int, *, public: bool) -> socket.socket:
    """Bind a socket that does not accept connections yet.

    Args:
        host: Name or address.
        port: Port; 0 for a free one.
        public: Whether addresses that other machines reach are allowed.

    Raises:
        ConfigError: The address is unknown, in use or not allowed.
    """
    if not 0 <= port < 65_536:  # getaddrinfo would take the remainder
        raise ConfigError(f"--port {port} is not a port; give 0 to 65535")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not a host"
        raise ConfigError(
            f"--host {host}: {reason}; give a name or address of this machine"
        ) from None
    family, _, _, _, address = found[0]
    if not public and not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
        raise ConfigError(
            f"--host {host} is reached by other machines; give --api-key-file FILE, or --no-key to "
            "serve everyone"
        )
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # elsewhere it would share the port with another program
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"--host {host} --port {port}: {error.strerror}; give another port, or 0 for a free one"
        ) from None
    return listener


def end_on_signals() -> None:
    """Make SIGTERM and SIGINT end the process with exit code 0, also before the server runs."""

    def end(_number: int, _frame: Any) -> NoReturn:
        sys.exit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)


def run(
    app: ASGIApp, listener: socket.socket, *, timeout: float, on_ready: Callable[[str], object]
) -> None:
    """Serve until SIGTERM or SIGINT, and then finish the requests that were accepted.

    Args:
        app: The application.
        listener: Socket of :func:`bind`.
        timeout: Seconds for the head of a request, and for the last requests at the end.
        on_ready: Callback, called with the address when the server accepts connections.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        ws="none",
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=int(timeout) + _LONGER,
        h11_max_incomplete_event_size=_HEAD,
    )
    config.load()
    config.http_protocol_class = _with_deadline(config.http_protocol_class, timeout)
    server = uvicorn.Server(config)
    listener.listen(_BACKLOG)
    host, port = listener.getsockname()[:2]
    on_ready(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
    with suppress(KeyboardInterrupt):
        server.run(sockets=[listener])


def _with_deadline(protocol: Any, seconds: float) -> Any:
    """Extend a protocol of uvicorn, which waits for the head of a request without a limit."""

    class WithDeadline(protocol):  # type: ignore[misc]
        _limit: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._limit = self.loop.call_later(seconds, self._give_up)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is None or self.cycle.response_complete:
                if self._limit is None:
                    self._limit = self.loop.call_later(seconds, self._give_up)
            else:
                self._forget()

        def connection_lost(self, exc: Exception | None) -> None:
            self._forget()
            super().connection_lost(exc)

        def _forget(self) -> None:
            if self._limit is not None:
                self._limit.cancel()
                self._limit = None

        def _give_up(self) -> None:
            self._limit = None
            if not self.transport.is_closing():
                self.transport.close()

    return WithDeadline
