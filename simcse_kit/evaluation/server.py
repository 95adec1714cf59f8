"""Client for servers with OpenAI's embeddings API, which bounds and checks their answers."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial

import anyio
import httpx2
import numpy as np
from anyio.from_thread import BlockingPortal, start_blocking_portal
from numpy.typing import NDArray

from simcse_kit.errors import ConfigError, ModelError
from simcse_kit.evaluation.server_answers import AnswerError, most_bytes, read_vectors
from simcse_kit.utils.printable import one_line
from simcse_kit.utils.progress import progress_bar

__all__ = ["KEY", "URL", "EmbeddingServer"]

logger = logging.getLogger(__name__)

URL, KEY = "OPENAI_BASE_URL", "OPENAI_API_KEY"

# Temporary failures: too many requests, and servers that are starting or overloaded.
_PASSING = (408, 409, 425, 429, 500, 502, 503, 504)
_LOCAL = ("localhost", "127.0.0.1", "::1")
# Bytes of an error message to read, and characters to show.
_ERROR_READ, _ERROR_SHOWN = 4000, 200
_MOST_HOST = 100
_LONGEST_WAIT = 60.0
"""Seconds that a server may ask to wait before the next attempt."""


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: httpx2.Headers
    body: bytes
    whole: bool


class _RequestError(Exception):
    """A request that failed.

    Args:
        reason: the reason, for the error message.
        passes: whether another attempt may succeed.
        wait: seconds that the server asks to wait.
    """

    def __init__(self, reason: str, *, passes: bool = False, wait: float = 0.0):
        super().__init__(reason)
        self.reason, self.passes, self.wait = reason, passes, wait


class EmbeddingServer:
    """A model of a server with OpenAI's embeddings API: ``POST URL/embeddings``.

    The key is sent only to the host of ``url``: redirects are not followed, and the environment's
    proxies are used for https only, where they see only the host. Answers are bounded in size and
    time.

    Args:
        model: the server's name for the model.
        url: address up to the version, such as ``http://localhost:8000/v1``.
        key: bearer token; most local servers need none.
        batch_size: number of texts in a request.
        tries: number of attempts for a request with a temporary failure (busy, unreachable), after
            pauses that double, or that the server asks for.
        pause: seconds before the second attempt.
        timeout: seconds for a request and its whole answer.

    Raises:
        ConfigError: ``url`` is not an http address or contains a password, the key cannot be sent,
            or a size is below 1.
    """

    pooling = "of the server"

    def __init__(
        self,
        model: str,
        url: str,
        *,
        key: str | None = None,
        batch_size: int = 128,
        tries: int = 5,
        pause: float = 1.0,
        timeout: float = 120.0,
    ):
        if batch_size < 1 or tries < 1:
            raise ConfigError(
                f"batch_size is {batch_size} and tries is {tries}; both must be 1 or more"
            )
        if not 0 < timeout < math.inf:
            raise ConfigError(f"timeout is {timeout}; give seconds above 0")
        self._url = _address(url)
        self._key = (key or "").strip()
        if not all("!" <= character <= "~" for character in self._key):
            raise ConfigError(
                f"${KEY} is not a key: it contains spaces or signs that are not ASCII"
            )
        self._model = model
        self._batch_size = batch_size
        self._tries = tries
        self._pause = pause
        self._timeout = timeout
        # The query may contain a secret.
        self._shown = one_line(str(self._url.copy_with(query=None)))

    def encode(self, sentences: list[str], *, progress: bool = False) -> NDArray[np.float32]:
        """Compute the (n, d) float32 vectors of n sentences.

        Args:
            sentences: the sentences.
            progress: show a progress bar on a terminal.

        Raises:
            ModelError: the server refuses, cannot be reached, or sends another answer.
        """
        rows: list[NDArray[np.float32]] = []
        if self._key and self._url.scheme == "http" and self._url.host not in _LOCAL:
            logger.warning("%s: the key of $%s is sent without encryption", self._shown, KEY)
        with (
            start_blocking_portal() as portal,
            portal.wrap_async_context_manager(self._client()) as client,
            progress_bar(len(sentences), shown=progress, desc="server", unit=" texts") as bar,
        ):
            for start in range(0, len(sentences), self._batch_size):
                part = sentences[start : start + self._batch_size]
                rows.append(self._vectors(portal, client, part, rows[0].shape[1] if rows else None))
                bar.update(len(part))
        return np.concatenate(rows) if rows else np.zeros((0, 0), dtype=np.float32)

    def _client(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            follow_redirects=False,
            timeout=self._timeout,
            # Use proxies for https only, because over http they would see the key.
            trust_env=self._url.scheme == "https",
        )

    def _vectors(
        self, portal: BlockingPortal, client: httpx2.AsyncClient, part: list[str], dim: int | None
    ) -> NDArray[np.float32]:
        """Request vectors (n, d), with further attempts after temporary failures."""
        failure = _RequestError("")
        for number in range(1, self._tries + 1):
            found = portal.call(partial(self._ask, client, part, dim))
            if not isinstance(found, _RequestError):
                return found
            failure = found
            if not failure.passes or number == self._tries:
                break
            wait = max(self._pause * 2 ** (number - 1), failure.wait)
            if wait > _LONGEST_WAIT:
                failure = _RequestError(f"{failure.reason}, and asks to wait {wait:,.0f} s")
                break
            logger.warning("%s: %s; again in %g s", self._shown, failure.reason, wait)
            time.sleep(wait)
        raise ModelError(
            f"{self._shown} gave no embeddings of {one_line(self._model)!r}: {failure.reason}; "
            f"check ${URL} and ${KEY}"
        )

    async def _ask(
        self, client: httpx2.AsyncClient, part: list[str], dim: int | None
    ) -> NDArray[np.float32] | _RequestError:
        """Send one request. Failures are returned, because an exception would contain the key."""
        try:
            with anyio.fail_after(self._timeout):
                answer = await self._post(client, part, most_bytes(len(part), dim))
            return self._read(answer, len(part), dim)
        except _RequestError as failure:
            return failure
        except TimeoutError:
            reason = f"the answer was not complete after {self._timeout:g} s"
        except (httpx2.HTTPError, OSError) as error:
            reason = self._clean(str(error)) or type(error).__name__
        return _RequestError(reason, passes=True)

    async def _post(self, client: httpx2.AsyncClient, part: list[str], most: int) -> _Answer:
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        # ASCII escapes can represent a lone surrogate.
        content = json.dumps({"model": self._model, "input": part}).encode()
        async with client.stream("POST", self._url, content=content, headers=headers) as answer:
            good = answer.status_code == 200
            if good and answer.headers.get("Content-Encoding", "identity") != "identity":
                raise _RequestError("the answer is compressed, which was not requested")
            most = most if good else _ERROR_READ
            body = bytearray()
            async for chunk in answer.aiter_raw():
                body += chunk[: most + 1 - len(body)]
                if len(body) > most:
                    if good:
                        raise _RequestError(
                            f"the answer is larger than {most:,} bytes for {len(part)} texts"
                        )
                    break
            return _Answer(
                answer.status_code, answer.headers, bytes(body[:most]), len(body) <= most
            )

    def _read(self, answer: _Answer, count: int, dim: int | None) -> NDArray[np.float32]:
        if answer.status == 200:
            try:
                return read_vectors(answer.body, count, dim)
            except AnswerError as error:
                raise _RequestError(self._clean(str(error))) from None
        if 300 <= answer.status < 400:
            target = _host(answer.headers.get("Location", ""))
            raise _RequestError(
                f"{answer.status}, a redirect to {self._clean(target) or 'nowhere'}, which is not "
                f"followed; if you trust that address, set ${URL} to it"
            )
        text = answer.body.decode("utf-8", "replace")
        if not answer.whole:  # the end may be a part of the key
            text = text[: -len(self._key)] if self._key else text
        raise _RequestError(
            f"{answer.status} {self._clean(text)}".rstrip(),
            passes=answer.status in _PASSING,
            wait=_seconds(answer.headers.get("Retry-After", "")),
        )

    def _clean(self, text: str) -> str:
        """Shorten a server's message to one line without the key and control characters."""
        if self._key:
            text = text.replace(self._key, "***")
            try:  # JSON may contain the key with escapes
                plain = json.dumps(json.loads(text), ensure_ascii=False)
                text = plain.replace(self._key, "***")
            except (ValueError, RecursionError):
                pass
        return one_line(" ".join(text.split()))[:_ERROR_SHOWN]


def _address(url: str) -> httpx2.URL:
    """Make the address for embeddings from the one in the environment."""
    advice = "give http://HOST/v1 or https://HOST/v1"
    try:
        base = httpx2.URL(url)
        found = base.copy_with(path=base.path.rstrip("/") + "/embeddings", fragment=None)
    except (httpx2.InvalidURL, ValueError, TypeError):
        found = None
    known = found is not None and found.scheme in ("http", "https") and bool(found.host)
    if found is None or not known or not 1 <= (found.port or 80) < 65_536:
        # The value is not shown, because it may be the key by mistake.
        raise ConfigError(f"{URL} is not an http address; {advice}")
    if found.userinfo:
        raise ConfigError(
            f"{URL} contains a user name or password; {advice}, and the key in ${KEY}"
        )
    return found


def _host(location: str) -> str:
    """Return scheme and host of a redirect; an empty string if it has none."""
    if not location:
        return ""
    try:
        url = httpx2.URL(location)
    except (httpx2.InvalidURL, ValueError, TypeError):
        return ""
    return f"{url.scheme}://{url.host}"[:_MOST_HOST] if url.host else "the same host"


def _seconds(retry_after: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> float:
    """Parse a Retry-After header, seconds or a date, into seconds; 0 for anything else."""
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after[:9])
    try:
        date = parsedate_to_datetime(retry_after)
        return max(0.0, (date - now()).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return 0.0
