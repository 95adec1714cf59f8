"""Dynamic batching: a queue of requests and the worker thread that computes them."""

from __future__ import annotations

import asyncio
import logging
import math
import queue
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcse_kit.encoder.encode_options import EncodeOptions
from simcse_kit.errors import SimcseError
from simcse_kit.serve.engine import Engine, Piece
from simcse_kit.serve.rotation import Rotation, Slice
from simcse_kit.utils.process import return_freed_memory

__all__ = ["Batcher", "Job", "QueueFullError", "TooManyTokensError", "WorkerError"]

logger = logging.getLogger(__name__)

# Characters that are tokenized between two batches, and those of one turn of a request.
_CHARACTERS, _CHARACTERS_PER_TURN = 65_536, 8192
# Cost of a text in characters in addition to its length.
_TEXT = 32
# A request gets this share of a batch per turn.
_TURNS = 8
_LONGEST_RETRY = 60
# Seconds between two calls of return_freed_memory.
_GIVE_BACK_EVERY = 5.0


class QueueFullError(Exception):
    """The queue is full.

    Args:
        retry_after: Seconds after which a request will probably be accepted.
    """

    def __init__(self, retry_after: int):
        super().__init__(retry_after)
        self.retry_after = retry_after


class TooManyTokensError(Exception):
    """A request has more tokens than allowed."""


class WorkerError(Exception):
    """The computation of a request failed; the message is meant for its client."""


@dataclass(eq=False)
class Job:
    """The texts of a request on their way to vectors.

    Attributes:
        texts: Texts, or their token ids.
        options: How the texts become vectors.
        answer: Future with the vectors ``(n, d)``, for the event loop.
        gone: Whether nobody waits for the answer any more.
        rows: Token ids of the texts that are tokenized.
        tokens: Number of tokens of ``rows``.
        parts: Vectors of the rows that are computed.
    """

    texts: Sequence[str] | Sequence[list[int]]
    options: EncodeOptions
    answer: asyncio.Future[NDArray[np.float32]]
    gone: bool = False
    rows: list[Sequence[int]] = field(default_factory=list)
    tokens: int = 0
    parts: list[NDArray[np.float32]] = field(default_factory=list)


_Outcome = tuple[Job, Any]


class Batcher:
    """A bounded queue of requests in front of a worker thread.

    While a batch is computed, new requests wait; the next batch takes what has arrived. So batches
    grow with the load, and a single request does not wait for others.

    Args:
        engine: Computes the batches.
        max_queue: Maximum number of requests that wait or are computed.
        max_tokens: Maximum number of tokens per request.
        on_batch: Callback, called with the number of tokens and the seconds of each batch.
        on_crash: Callback, called when the worker failed and continues.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        max_queue: int,
        max_tokens: int,
        on_batch: Callable[[int, float], object] = lambda _tokens, _seconds: None,
        on_crash: Callable[[], object] = lambda: None,
    ):
        self._engine = engine
        self._max_queue = max_queue
        self._max_tokens = max_tokens
        self._on_batch = on_batch
        self._on_crash = on_crash
        self._inbox: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._busy_since: float | None = None
        self._in_hand: list[Job] = []
        self._finished: deque[float] = deque(maxlen=64)
        self.waiting = 0
        self._start_empty()

    def _start_empty(self) -> None:
        self._texts: Rotation[Job] = Rotation(_CHARACTERS, _CHARACTERS_PER_TURN)
        budget = self._engine.batch_tokens
        self._rows: Rotation[Job] = Rotation(budget, max(1, budget // _TURNS))

    # ------------------------------------------------------------ event loop

    def start(self) -> None:
        """Start the worker; called in the event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name="worker", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the worker after the requests that it has."""
        if self._thread is not None:
            self._inbox.put(None)
            self._thread.join()
            self._thread = None

    def submit(self, job: Job) -> None:
        """Put a request into the queue.

        Raises:
            QueueFullError: The queue is full.
        """
        if self.waiting >= self._max_queue:
            raise QueueFullError(self.retry_after())
        self.waiting += 1
        job.answer.add_done_callback(self._note_done)
        self._inbox.put(job)

    def drop(self, job: Job) -> None:
        """Forget a request whose client has gone; what is not yet computed never is."""
        job.gone = True
        job.answer.cancel()

    def retry_after(self) -> int:
        """Estimate from recent answers after how many seconds the queue is empty, 1 to 60."""
        if len(self._finished) < 2:
            return 1
        seconds = (time.monotonic() - self._finished[0]) / len(self._finished)
        return max(1, min(_LONGEST_RETRY, math.ceil(self.waiting * seconds)))

    def busy_seconds(self) -> float:
        """Return for how long the worker has computed the present batch; 0 if it is idle."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    @property
    def alive(self) -> bool:
        """Whether the worker runs."""
        return self._thread is not None and self._thread.is_alive()

    def _note_done(self, _answer: asyncio.Future[Any]) -> None:
        self.waiting -= 1
        self._finished.append(time.monotonic())

    @staticmethod
    def _deliver(outcomes: Sequence[_Outcome]) -> None:
        for job, outcome in outcomes:
            if job.answer.done():  # its client has gone
                continue
            if isinstance(outcome, Exception):
                job.answer.set_exception(outcome)
            else:
                job.answer.set_result(outcome)

    # ------------------------------------------------------------ worker thread

    def _work(self) -> None:
        given_back = time.monotonic()
        while True:
            try:
                if not self._receive():
                    return
                self._busy_since = time.monotonic()
                self._tokenize()
                self._compute()
                if time.monotonic() - given_back > _GIVE_BACK_EVERY:
                    return_freed_memory()
                    given_back = time.monotonic()
            except BaseException as error:
                self._recover(error)
            finally:
                self._in_hand = []
                self._busy_since = None

    def _receive(self) -> bool:
        """Take over new requests, and wait if there is nothing to do; False at the end."""
        while True:
            try:
                job = self._inbox.get(block=not (self._texts or self._rows))
            except queue.Empty:
                return True
            if job is None:
                if not (self._texts or self._rows):
                    return False
                self._inbox.put(None)  # found again when the rest is done
                return True
            self._in_hand = [job]
            self._accept(job)
            self._in_hand = []

    def _accept(self, job: Job) -> None:
        if isinstance(job.texts[0], str):
            self._texts.add(job, [len(text) + _TEXT for text in job.texts])
        else:
            self._add_rows(job, job.texts)
            self._queue_rows(job)

    def _add_rows(self, job: Job, rows: Sequence[Any]) -> None:
        job.rows.extend(rows)
        job.tokens += sum(map(len, rows))
        if job.tokens > self._max_tokens and not job.gone:
            job.gone = True
            self._send([(job, TooManyTokensError())])

    def _queue_rows(self, job: Job) -> None:
        if not job.gone:
            self._rows.add(job, [len(row) for row in job.rows])

    def _tokenize(self) -> None:
        """Tokenize texts of several requests in one call for each prompt."""
        parts = self._texts.take()
        self._in_hand = [part.request for part in parts]
        by_options: dict[EncodeOptions, list[Slice[Job]]] = {}
        for part in parts:
            by_options.setdefault(part.request.options, []).append(part)
        for options, group in by_options.items():
            texts = [text for part in group for text in part.request.texts[part.start : part.stop]]
            rows = self._engine.tokenize(texts, options)  # type: ignore[arg-type]
            at = 0
            for part in group:
                job, count = part.request, part.stop - part.start
                self._add_rows(job, rows[at : at + count])
                at += count
                if len(job.rows) == len(job.texts):
                    self._queue_rows(job)

    def _compute(self) -> None:
        """Compute one batch, and send the answers of the requests that it completes."""
        parts = self._rows.take()
        self._in_hand = [part.request for part in parts]
        if not parts:
            return
        began = time.monotonic()
        pieces = [
            Piece(part.request.rows[part.start : part.stop], part.request.options) for part in parts
        ]
        outcomes: list[_Outcome] = []
        for part, vectors in zip(parts, self._engine.vectors(pieces), strict=True):
            job = part.request
            job.parts.append(vectors)
            if part.stop == len(job.rows):
                whole = job.parts[0] if len(job.parts) == 1 else np.concatenate(job.parts)
                outcomes.append((job, whole))
        tokens = sum(len(row) for piece in pieces for row in piece.rows)
        self._on_batch(tokens, time.monotonic() - began)
        self._send(outcomes)

    def _recover(self, error: BaseException) -> None:
        """Fail the requests of the step that failed, log the failure and continue."""
        lost = self._in_hand
        if not lost:  # the queue itself is damaged
            lost = [*self._texts.clear(), *self._rows.clear()]
            self._start_empty()
        # Messages are logged only if texts cannot be in them: torch gets numbers.
        known = isinstance(error, RuntimeError | MemoryError)
        logger.error(
            "the worker failed with %s%s, answers %d requests with an error and continues:\n%s",
            type(error).__name__,
            f" ({error})" if known else "",
            len(set(lost)),
            "".join(traceback.format_tb(error.__traceback__)),
        )
        message = str(error) if isinstance(error, SimcseError) else "the computation failed"
        for job in lost:
            job.gone = True
        self._on_crash()
        self._send([(job, WorkerError(message)) for job in lost])

    def _send(self, outcomes: list[_Outcome]) -> None:
        assert self._loop is not None
        with suppress(RuntimeError):  # the event loop has ended
            self._loop.call_soon_threadsafe(self._deliver, outcomes)
