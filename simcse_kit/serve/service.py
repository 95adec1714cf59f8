"""What the routes of the server share: checks, batches and answers."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request

from simcse_kit.encoder.encode_options import EncodeOptions
from simcse_kit.errors import ConfigError, MissingExtraError, SimcseError
from simcse_kit.search import Hit, SearchIndex
from simcse_kit.serve.batcher import (
    Batcher,
    Job,
    QueueFullError,
    TooManyTokensError,
    WorkerError,
)
from simcse_kit.serve.body import CLIENT_GONE, BodyReader
from simcse_kit.serve.engine import EncoderEngine
from simcse_kit.serve.errors import RequestError
from simcse_kit.serve.metrics import ServerMetrics
from simcse_kit.serve.requests import SearchRequest
from simcse_kit.serve.settings import ServeSettings

__all__ = ["Service"]

logger = logging.getLogger(__name__)

# Seconds between two looks for changes of the index.
_REFRESH_EVERY = 1.0
# Seconds after which a waiting request is also watched for its client going away.
_GRACE = 0.05


class Service:
    """The parts of a running server, and the checks and answers that its routes share.

    Args:
        engine: Encoder.
        settings: Limits.
        index: Index for searches, built by the same encoder.
    """

    def __init__(
        self,
        engine: EncoderEngine,
        settings: ServeSettings,
        index: SearchIndex | None = None,
    ):
        self.engine = engine
        self.settings = settings
        self.index = index
        self._refreshed = -math.inf
        self.bodies = BodyReader(settings)
        self.metrics = ServerMetrics(lambda: self.batcher.waiting)
        self.batcher = Batcher(
            engine,
            max_queue=settings.max_queue,
            max_tokens=settings.max_tokens,
            on_batch=self.metrics.note_batch,
            on_crash=self.metrics.crashes.inc,
        )
        self.started = int(time.time())

    def card(self) -> dict[str, Any]:
        """Describe the model as OpenAI's API does."""
        encoder = self.engine.encoder
        return {
            "id": self.settings.name,
            "object": "model",
            "created": self.started,
            "owned_by": "simcse-kit",
            "dimensions": encoder.embedding_dim,
            "max_length": encoder.max_length,
        }

    def health(self) -> dict[str, Any]:
        """Describe the state; the status is ``ok`` if requests are answered in time."""
        stuck = self.batcher.busy_seconds() > self.settings.timeout
        status = "stuck" if stuck else "ok" if self.batcher.alive else "stopped"
        index = None if self.index is None else len(self.index)
        waiting = self.batcher.waiting
        return {"status": status, "model": self.settings.name, "waiting": waiting, "index": index}

    def check_model(self, name: str) -> None:
        """Refuse a model that is not served."""
        if name != self.settings.name:
            raise RequestError(
                404,
                f"the model {name!r:.100} is not served here; use {self.settings.name!r}",
                param="model",
                code="model_not_found",
            )

    def check_ids(self, rows: Sequence[Sequence[int]]) -> None:
        """Refuse token ids that the encoder cannot compute."""
        encoder, most = self.engine.encoder, self.engine.vocabulary - 1
        if encoder.template is not None:
            raise RequestError(
                400, "the model puts texts into a template; send texts", param="input"
            )
        for number, row in enumerate(rows):
            if len(row) > encoder.max_length:
                raise RequestError(
                    400,
                    f"item {number} has {len(row)} token ids; at most {encoder.max_length} are "
                    "allowed",
                    param="input",
                )
            if min(row) < 0 or max(row) > most:
                raise RequestError(
                    400,
                    f"item {number} has a token id outside 0 to {most}, those of this model's "
                    "own tokenizer; send texts if the ids are of another one",
                    param="input",
                )

    def options(self, dimensions: int | None = None) -> EncodeOptions:
        """Make the options of a request for vectors."""
        try:
            return self.engine.options(dimensions)
        except SimcseError as error:
            raise RequestError(400, str(error), param="dimensions") from None

    def current_index(self) -> SearchIndex:
        """Return the index, after a look for changes at most once a second.

        Raises:
            RequestError: There is no index, or it cannot be read.
        """
        index = self.needed_index()
        now = time.monotonic()
        if now - self._refreshed > _REFRESH_EVERY:
            try:
                index.refresh()
            except SimcseError as error:
                raise _unreadable(error) from None
            self._refreshed = now
        return index

    def search(self, vectors: NDArray[np.float32], asked: SearchRequest) -> list[list[Hit]]:
        """Search the index, in a thread of its own.

        Raises:
            RequestError: There is no index, it cannot be read, or a value is not allowed.
        """
        index = self.needed_index()
        try:
            return index.search_vectors(
                vectors,
                asked.top_k,
                asked.threshold,
                texts=asked.query if asked.hybrid else None,
                filter=asked.filter,
            )
        except (ConfigError, MissingExtraError) as error:
            raise RequestError(400, str(error)) from None
        except SimcseError as error:
            raise _unreadable(error) from None

    def needed_index(self) -> SearchIndex:
        """Return the index.

        Raises:
            RequestError: The server has none.
        """
        if self.index is None:
            raise RequestError(
                404, "this server has no index; start it with --index DIR", code="no_index"
            )
        return self.index

    async def vectors(
        self,
        request: Request,
        texts: Sequence[str] | Sequence[list[int]],
        options: EncodeOptions,
        deadline: float,
    ) -> tuple[NDArray[np.float32], dict[str, int]]:
        """Compute vectors in the batches of all requests.

        Returns:
            ``(n, d)``, and the usage of tokens.

        Raises:
            RequestError: There are too many texts or tokens, the queue is full, the time is over,
                the client has gone, or the computation failed.
        """
        if len(texts) > self.settings.max_texts:
            raise RequestError(
                413,
                f"the request has {len(texts):,} texts; at most {self.settings.max_texts:,} are "
                "allowed; send them in several requests",
                param="input",
                code="too_many_texts",
            )
        job = Job(texts, options, asyncio.get_running_loop().create_future())
        try:
            self.batcher.submit(job)
        except QueueFullError as error:
            raise RequestError(
                429,
                f"the queue is full; try again in {error.retry_after} s",
                code="server_busy",
                headers={"Retry-After": str(error.retry_after)},
            ) from None
        try:
            await self._wait(request, job, deadline)
            vectors = job.answer.result()
        except TooManyTokensError:
            raise RequestError(
                413,
                f"the request has more than {self.settings.max_tokens:,} tokens; send the texts "
                "in several requests",
                param="input",
                code="too_many_tokens",
            ) from None
        except WorkerError as error:
            raise RequestError(500, str(error), code="worker_failed") from None
        finally:
            self.batcher.drop(job)
        return vectors, {"prompt_tokens": job.tokens, "total_tokens": job.tokens}

    async def _wait(self, request: Request, job: Job, deadline: float) -> None:
        """Wait for an answer, and no longer than the client and the deadline allow."""
        loop = asyncio.get_running_loop()
        left = deadline - loop.time()
        done, _ = await asyncio.wait((job.answer,), timeout=min(_GRACE, left))
        if not done and left > _GRACE:
            # The body was read, so the next message says that the client has gone.
            leaving = asyncio.ensure_future(request.receive())
            left = deadline - loop.time()
            await asyncio.wait(
                (job.answer, leaving), timeout=left, return_when=asyncio.FIRST_COMPLETED
            )
            gone = leaving.done()
            leaving.cancel()
            if gone and not job.answer.done():
                raise RequestError(CLIENT_GONE, "the client has gone")
        if not job.answer.done():
            raise RequestError(
                504,
                f"the answer was not ready after {self.settings.timeout:g} s; send fewer texts, or "
                "try again later",
                code="timeout",
            )


def _unreadable(error: SimcseError) -> RequestError:
    # The message of the error names the folder of the index, so it is not sent.
    logger.error("the index cannot be searched: %s", error)
    return RequestError(503, "the index cannot be read; the server's log says why")
