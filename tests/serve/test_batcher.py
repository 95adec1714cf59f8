"""The queue and the worker, with an engine whose forward passes the tests control."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from simcse_kit.encoder.encode_options import EncodeOptions
from simcse_kit.errors import ModelError
from simcse_kit.serve.batcher import (
    Batcher,
    Job,
    QueueFullError,
    TooManyTokensError,
    WorkerError,
)
from simcse_kit.serve.engine import Piece

OPTIONS = EncodeOptions()
SECRET = "a text of a client"


class FakeEngine:
    """A text of n characters has n tokens; its vector is its length. Bad texts raise errors."""

    batch_tokens = 16

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Event()

    def tokenize(self, texts: Sequence[str], _options: EncodeOptions) -> list[list[int]]:
        if "untokenizable" in texts:
            raise ValueError(SECRET)
        return [list(map(ord, text)) for text in texts]

    def vectors(self, pieces: Sequence[Piece]) -> list[NDArray[np.float32]]:
        self.entered.set()
        assert self.open.wait(10)
        self.batches.append([len(row) for piece in pieces for row in piece.rows])
        for piece in pieces:
            for row in piece.rows:
                text = "".join(map(chr, row))
                if text in ERRORS:
                    raise ERRORS[text]
        return [np.array([[len(row)] for row in piece.rows], np.float32) for piece in pieces]


ERRORS: dict[str, BaseException] = {
    "crash": RuntimeError("torch failed"),
    "exit": SystemExit(3),
    "model": ModelError("too large for fp16"),
    "wrong": ValueError(SECRET),
}


def run(scenario: Callable[[Batcher, FakeEngine], Awaitable[None]], **limits: int) -> None:
    async def whole() -> None:
        engine = FakeEngine()
        batcher = Batcher(engine, **{"max_queue": 100, "max_tokens": 1000, **limits})
        batcher.start()
        try:
            async with asyncio.timeout(20):
                await scenario(batcher, engine)
        finally:
            engine.open.set()
            batcher.stop()
        assert not batcher.alive
        async with asyncio.timeout(5):
            while batcher.waiting:  # the loop counts answers after it has given them
                await asyncio.sleep(0)

    asyncio.run(whole())


def submit(batcher: Batcher, texts: Any) -> Job:
    job = Job(texts, OPTIONS, asyncio.get_running_loop().create_future())
    batcher.submit(job)
    return job


async def entered(engine: FakeEngine) -> None:
    while not engine.entered.is_set():
        await asyncio.sleep(0.001)


def test_texts_and_token_ids_become_vectors_in_their_order() -> None:
    async def scenario(batcher: Batcher, _engine: FakeEngine) -> None:
        job, ids = submit(batcher, ["a" * n for n in range(1, 9)]), submit(batcher, [[1, 2], [3]])
        assert (await job.answer)[:, 0].tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
        assert (await ids.answer)[:, 0].tolist() == [2, 1]
        assert (job.tokens, ids.tokens) == (36, 3)

    run(scenario)


def test_requests_that_arrive_together_share_a_batch() -> None:
    async def scenario(batcher: Batcher, engine: FakeEngine) -> None:
        engine.open.clear()
        first = submit(batcher, ["one"])
        await entered(engine)
        others = [submit(batcher, ["abcd"]) for _ in range(6)]
        engine.open.set()
        await asyncio.gather(first.answer, *(job.answer for job in others))
        assert engine.batches == [[3], [4, 4, 4, 4], [4, 4]]

    run(scenario)


def test_a_small_request_overtakes_a_large_one() -> None:
    async def scenario(batcher: Batcher, engine: FakeEngine) -> None:
        engine.open.clear()
        large = submit(batcher, ["ab"] * 400)
        await entered(engine)
        small = submit(batcher, ["xyz"])
        engine.open.set()
        await small.answer
        assert len(await large.answer) == 400
        assert [3 in batch for batch in engine.batches].index(True) <= 2

    run(scenario)


def test_a_client_that_went_away_is_not_computed() -> None:
    async def scenario(batcher: Batcher, engine: FakeEngine) -> None:
        engine.open.clear()
        first = submit(batcher, ["one"])
        await entered(engine)
        gone, kept = submit(batcher, ["abcdefg"]), submit(batcher, ["xy"])
        batcher.drop(gone)
        engine.open.set()
        await asyncio.gather(first.answer, kept.answer)
        assert engine.batches == [[3], [2]]
        assert gone.answer.cancelled()

    run(scenario)


def test_a_full_queue_refuses_and_accepts_again() -> None:
    async def scenario(batcher: Batcher, engine: FakeEngine) -> None:
        engine.open.clear()
        jobs = [submit(batcher, ["a"]) for _ in range(3)]
        with pytest.raises(QueueFullError) as refused:
            submit(batcher, ["b"])
        assert 1 <= refused.value.retry_after <= 60
        engine.open.set()
        await asyncio.gather(*(job.answer for job in jobs))
        await submit(batcher, ["b"]).answer

    run(scenario, max_queue=3)


@pytest.mark.parametrize("texts", [["abc"] * 5, [[1, 2, 3]] * 5], ids=["texts", "ids"])
def test_too_many_tokens_are_refused_before_they_are_computed(texts: Any) -> None:
    async def scenario(batcher: Batcher, engine: FakeEngine) -> None:
        with pytest.raises(TooManyTokensError):
            await submit(batcher, texts).answer
        assert engine.batches == []
        await submit(batcher, texts[:4]).answer

    run(scenario, max_tokens=12)


@pytest.mark.parametrize("bad", [*ERRORS, "untokenizable"])
def test_a_crash_fails_its_requests_and_the_worker_continues(
    bad: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(batcher: Batcher, _engine: FakeEngine) -> None:
        message = "too large for fp16" if bad == "model" else "the computation failed"
        with pytest.raises(WorkerError, match=message):
            await submit(batcher, [bad, "other"]).answer
        assert (await submit(batcher, ["good"]).answer).tolist() == [[4]]

    with caplog.at_level(logging.ERROR):
        run(scenario)
    assert "the worker failed with" in caplog.text
    assert SECRET not in caplog.text
    assert ("torch failed" in caplog.text) == (bad == "crash")


def test_a_damaged_queue_fails_all_requests_and_starts_empty() -> None:
    async def scenario(batcher: Batcher, _engine: FakeEngine) -> None:
        with pytest.raises(WorkerError):
            await submit(batcher, [None]).answer
        await submit(batcher, ["good"]).answer

    run(scenario)


def test_the_end_comes_after_all_waiting_requests() -> None:
    async def scenario(batcher: Batcher, engine: FakeEngine) -> None:
        engine.open.clear()
        jobs = [submit(batcher, ["abc"] * 20) for _ in range(4)]
        await entered(engine)
        engine.open.set()
        batcher.stop()
        await asyncio.gather(*(job.answer for job in jobs))

    run(scenario)
