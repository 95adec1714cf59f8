"""Encoders that are not ours: sentence-transformers models, and servers of embeddings."""

from __future__ import annotations

import json
import logging
import os
import time
import urllib.error
import urllib.request
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcse_kit.errors import ConfigError, ModelError
from simcse_kit.evaluation.embed import Encoder
from simcse_kit.evaluation.sentence_transformer import SentenceTransformersModel
from simcse_kit.progress import progress_bar

__all__ = ["EmbeddingServer", "is_external", "open_external"]

logger = logging.getLogger(__name__)

_ST, _SERVER = "st:", "openai:"
_URL, _KEY = "OPENAI_BASE_URL", "OPENAI_API_KEY"
_DEFAULT_URL = "https://api.openai.com/v1"
# What passes with time: too many requests, and servers that are starting or overloaded.
_PASSING = (408, 409, 429, 500, 502, 503, 504)


def is_external(name: str) -> bool:
    """Whether a model's name stands for an encoder that is not ours: ``st:…`` or ``openai:…``."""
    return name.startswith((_ST, _SERVER))


def open_external(name: str) -> Encoder:
    """Open ``st:NAME``, a sentence-transformers model, or ``openai:NAME``, a model of a server.

    The server is that of ``$OPENAI_BASE_URL`` (such as ``http://localhost:8000/v1``; OpenAI's own
    without it), the key ``$OPENAI_API_KEY``.

    Raises:
        MissingExtraError: sentence-transformers is not installed.
        ModelError: there is no such sentence-transformers model, or it is damaged.
        ConfigError: the address is none.
    """
    if name.startswith(_SERVER):
        url = os.environ.get(_URL, _DEFAULT_URL)
        return EmbeddingServer(name.removeprefix(_SERVER), url, key=os.environ.get(_KEY))
    return SentenceTransformersModel(name.removeprefix(_ST))


class EmbeddingServer:
    """A server that speaks OpenAI's embeddings API: ``POST URL/embeddings``.

    Args:
        model: the server's name of it.
        url: address up to the version, such as ``http://localhost:8000/v1``.
        key: sent as bearer token; servers of one's own mostly need none.
        batch_size: texts of one request.
        tries: of a request that fails in a way that may pass (busy, unreachable), with growing
            pauses.
        pause: seconds before the second try.
        timeout: seconds to wait for an answer.

    Raises:
        ConfigError: ``url`` is no http address, or a size is below 1.
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
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"{_URL} is {url!r}; give http://HOST/v1 or https://HOST/v1")
        if batch_size < 1 or tries < 1:
            raise ConfigError(f"batch_size is {batch_size}, tries {tries}; both must be 1 or more")
        self._model = model
        self._url = url.rstrip("/") + "/embeddings"
        self._key = key
        self._batch_size = batch_size
        self._tries = tries
        self._pause = pause
        self._timeout = timeout

    def encode(self, sentences: list[str], *, progress: bool = False) -> NDArray[np.float32]:
        """Vectors of n sentences: (n, d).

        Args:
            sentences: in any number.
            progress: a bar on a terminal or in a notebook.

        Raises:
            ModelError: the server refuses, cannot be reached, or answers something else.
        """
        rows: list[NDArray[np.float32]] = []
        with progress_bar(len(sentences), shown=progress, desc="server", unit=" texts") as bar:
            for start in range(0, len(sentences), self._batch_size):
                part = sentences[start : start + self._batch_size]
                rows += self._vectors(self._post({"model": self._model, "input": part}), len(part))
                bar.update(len(part))
        return np.stack(rows) if rows else np.zeros((0, 0), dtype=np.float32)

    def _post(self, body: dict[str, Any]) -> Any:
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(self._url, json.dumps(body).encode(), headers)
        for number in range(1, self._tries + 1):
            try:
                with urllib.request.urlopen(request, timeout=self._timeout) as answer:
                    return json.loads(answer.read())
            except urllib.error.HTTPError as error:
                text = " ".join(error.read(500).decode("utf-8", "replace").split())
                reason = f"{error.code} {text[:200]}"
                passes = error.code in _PASSING
            except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
                reason, passes = str(getattr(error, "reason", error)), True
            except ValueError:
                reason, passes = "the answer is no JSON", False
            if not passes or number == self._tries:
                break
            wait = self._pause * 2 ** (number - 1)
            logger.warning("%s: %s; again in %g s", self._url, reason, wait)
            time.sleep(wait)
        raise ModelError(
            f"{self._url} gave no embeddings of {self._model!r}: {reason}; check ${_URL}, ${_KEY}"
        )

    def _vectors(self, answer: Any, count: int) -> list[NDArray[np.float32]]:
        try:
            # In any order, says the API: each has its index.
            found = {row["index"]: np.array(row["embedding"], np.float32) for row in answer["data"]}
            vectors = [found[index] for index in range(count)]
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"{self._url} answered something else than {count} embeddings ({error!r}); is it "
                "an OpenAI-compatible server?"
            ) from None
        if len({vector.shape for vector in vectors}) != 1 or vectors[0].ndim != 1:
            raise ModelError(f"{self._url} gave embeddings of different lengths")
        return vectors
