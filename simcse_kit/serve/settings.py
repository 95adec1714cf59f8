"""Settings of the server, checked before anything is loaded."""

from __future__ import annotations

import math
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

from simcse_kit.errors import ConfigError

__all__ = ["ServeSettings", "read_key"]

_ORIGIN = re.compile(r"\*|https?://[^/\s]+")
_MOST_KEY = 4096


@dataclass(frozen=True)
class ServeSettings:
    """Limits and access rules of a server.

    Attributes:
        name: Name of the model in requests and answers.
        key: API key that requests must send; None for no key.
        cors: Origins whose pages may use the server from a browser.
        max_queue: Maximum number of requests that wait or are computed; further ones get 429.
        max_texts: Maximum number of texts per request.
        max_tokens: Maximum number of tokens per request.
        max_bytes: Maximum size of a request body in bytes.
        max_held: Maximum size of all request bodies in memory in bytes.
        timeout: Seconds for a request, its body included.

    Raises:
        ConfigError: A value is not allowed.
    """

    name: str
    key: str | None = field(default=None, repr=False)
    cors: tuple[str, ...] = ()
    max_queue: int = 1024
    max_texts: int = 2048
    max_tokens: int = 300_000
    max_bytes: int = 16 * 2**20
    max_held: int = 256 * 2**20
    timeout: float = 60.0

    def __post_init__(self) -> None:
        for option in ("max_queue", "max_texts", "max_tokens", "max_bytes", "max_held"):
            value = getattr(self, option)
            if value < 1:
                raise ConfigError(f"--{option.replace('_', '-')} is {value}; give 1 or more")
        if not 0 < self.timeout < math.inf:
            raise ConfigError(f"--timeout is {self.timeout:g}; give seconds above 0")
        for origin in self.cors:
            if not _ORIGIN.fullmatch(origin):
                raise ConfigError(
                    f"--cors {origin!r} is not an origin; give scheme and host without a path, "
                    "such as https://example.org"
                )


def read_key(path: str | Path) -> str:
    """Read an API key from a file that other users cannot read.

    Args:
        path: File with the key as its only line.

    Raises:
        ConfigError: The file cannot be read, other users have access to it, or it does not hold a
            key.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
        if mode & stat.S_IRWXO:
            raise ConfigError(
                f"--api-key-file {path}: all users of this machine have access to it (mode "
                f"{stat.S_IMODE(mode):o}); run: chmod 600 {path}"
            )
        with path.open("rb") as file:
            content = file.read(_MOST_KEY + 1)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(
            f"--api-key-file {path} cannot be read: {reason}; give a file with the key"
        ) from None
    key = content.strip()
    if not key or len(content) > _MOST_KEY or not all(0x21 <= byte <= 0x7E for byte in key):
        # The content is not shown, because it may be a key.
        raise ConfigError(
            f"--api-key-file {path} does not hold a key; write one line of printable ASCII "
            "characters without spaces into it"
        )
    return key.decode()
