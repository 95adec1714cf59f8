"""Forked processes and threads that share an encoder; none may hang."""

from __future__ import annotations

import contextlib
import http.client
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from simcse_kit.encoder import forked_processes, forward_pass
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.forward_pass import evaluation_mode
from simcse_kit.encoder.quantization import layer_cache
from simcse_kit.errors import ConfigError
from tests.encoder.conftest import in_fork

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

TEXTS = [f"a dog {n} runs to the hill " + "and a cat " * (n % 5) for n in range(80)]
MANY_NUMBERS = 1_000_000
LIMIT = 30


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    """As on a machine with several cores, whatever the environment says."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def expected(bert: SentenceEncoder) -> np.ndarray:
    return bert.encode(TEXTS)


def use_all_threads() -> None:
    """Make torch start its threads for the calling thread."""
    torch.ones(MANY_NUMBERS).exp_().sum()
    square = torch.ones(512, 512)
    torch.nn.functional.linear(square @ square, square)


def encodes(encoder: SentenceEncoder, expected: np.ndarray) -> None:
    np.testing.assert_allclose(encoder.encode(TEXTS[0]), expected[0], atol=1e-5)
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=1e-5)
    use_all_threads()


# ---------------------------------------------------------------- fork


def in_fresh_thread(work: Callable[[], object]) -> None:
    """Run ``work`` in a thread that has not computed: that of the tests has its pool already."""

    def run() -> None:
        torch.set_num_threads(2)
        work()

    SentenceEncoder.load("mini")  # what is imported at the first time may start threads
    with ThreadPoolExecutor(1) as pool:
        pool.submit(run).result()


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads cannot be counted here")
def test_loading_leaves_no_thread_behind() -> None:
    def threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    def work() -> None:
        before = threads()
        SentenceEncoder.load("mini")
        for _ in range(100):  # threads that end are seen for a moment
            if threads() <= before:
                return
            time.sleep(0.01)
        raise AssertionError(f"{threads() - before} threads more than before")

    in_fresh_thread(work)


def test_fork_after_loading() -> None:
    def work() -> None:
        encoder = SentenceEncoder.load("mini")

        def child() -> None:
            assert encoder.encode("a dog").shape == (256,)
            use_all_threads()
            torch.set_num_threads(2)  # a process that has only loaded leaves this possible
            use_all_threads()

        in_fork(child)

    in_fresh_thread(work)


def test_fork_after_encoding(bert: SentenceEncoder, expected: np.ndarray) -> None:
    use_all_threads()
    bert.encode(TEXTS[0])
    in_fork(lambda: encodes(bert, expected))
    in_fork(lambda: in_fork(lambda: encodes(bert, expected)))
    encodes(bert, expected)
    assert torch.get_num_threads() == 2


def test_fork_after_training(bert: SentenceEncoder) -> None:
    def step() -> float:
        ids = torch.randint(5, 40, (64, 20))
        bert.train()
        loss = bert(ids, torch.ones_like(ids)).square().mean()
        loss.backward()
        bert.eval()
        return float(loss.detach())

    def child() -> None:
        assert step() > 0
        use_all_threads()
        assert np.isfinite(bert.encode(["a cat"] * 3)).all()

    step()
    use_all_threads()
    in_fork(child)
    bert.zero_grad()


def test_more_threads_in_a_child_than_it_can_have(
    bert: SentenceEncoder, expected: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    bert.encode(TEXTS[0])
    use_all_threads()

    def child() -> None:
        torch.set_num_threads(2)
        encodes(bert, expected)
        assert torch.get_num_threads() == 1
        assert "it can use only one thread instead of 2" in caplog.text

    in_fork(child)


@pytest.mark.parametrize("chosen", [None, "true"])
def test_tokenizers_threads(
    bert: SentenceEncoder,
    expected: np.ndarray,
    chosen: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("TOKENIZERS_PARALLELISM")
    if chosen is not None:
        monkeypatch.setenv("TOKENIZERS_PARALLELISM", chosen)
    bert.tokenize(TEXTS)
    in_fork(lambda: encodes(bert, expected))
    assert os.environ.get("TOKENIZERS_PARALLELISM") == chosen
    assert capfd.readouterr().err == ""


def test_fork_while_another_thread_tokenizes(bert: SentenceEncoder, expected: np.ndarray) -> None:
    has_lock, release = threading.Event(), threading.Event()

    def holder() -> None:
        with forked_processes.PREPARING, forked_processes.TOKENIZING:
            has_lock.set()
            release.wait(LIMIT)

    thread = threading.Thread(target=holder)
    thread.start()
    has_lock.wait()
    threading.Timer(0.1, release.set).start()
    in_fork(lambda: encodes(bert, expected))
    thread.join()


def test_a_stream_stays_in_its_process(bert: SentenceEncoder, expected: np.ndarray) -> None:
    stream = bert.encode_stream(TEXTS, chunk=100)
    parts = [next(stream)]

    def child() -> None:
        with pytest.raises(ConfigError, match=r"this stream of vectors was started in process \d+"):
            next(stream)

    in_fork(child)
    np.testing.assert_allclose(np.concatenate([*parts, *stream]), expected, atol=1e-5)


shared_encoder: SentenceEncoder | None = None


def encode_shared(text: str) -> np.ndarray:
    assert shared_encoder is not None
    return shared_encoder.encode(text)


class Encoded(torch.utils.data.Dataset[torch.Tensor]):
    """Encodes where it is read, as a collator might."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, number: int) -> torch.Tensor:
        return torch.from_numpy(encode_shared(TEXTS[number]))


def test_pools_and_data_loaders(
    bert: SentenceEncoder, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "shared_encoder", bert)
    use_all_threads()
    with multiprocessing.get_context("fork").Pool(2) as pool:
        vectors = pool.map_async(encode_shared, TEXTS[:8]).get(timeout=LIMIT)
    np.testing.assert_allclose(np.stack(vectors), expected[:8], atol=1e-5)
    loader = DataLoader(
        Encoded(), batch_size=4, num_workers=2, multiprocessing_context="fork", timeout=LIMIT
    )
    np.testing.assert_allclose(torch.cat(list(loader)).numpy(), expected[:8], atol=1e-5)


def test_cuda_in_a_forked_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: True)
    forked_processes.require_usable(torch.device("cpu"))
    with pytest.raises(ConfigError, match="CUDA cannot be used in a forked process"):
        forked_processes.require_usable(torch.device("cuda"))


# ---------------------------------------------------------------- threads


def test_threads_that_share_an_encoder(bert: SentenceEncoder, expected: np.ndarray) -> None:
    bert.train()
    try:
        with ThreadPoolExecutor(6) as pool:
            whole = [pool.submit(bert.encode, TEXTS) for _ in range(3)]
            single = list(pool.map(bert.encode, TEXTS[:40]))
        assert bert.training
    finally:
        bert.eval()
    for future in whole:
        np.testing.assert_allclose(future.result(), expected, atol=1e-5)
    np.testing.assert_allclose(np.stack(single), expected[:40], atol=1e-5)
    assert torch.get_num_threads() == 2


def test_dropout_stays_off_until_the_last_thread_leaves() -> None:
    module = torch.nn.Sequential(torch.nn.Dropout(0.5)).train()
    first, second = evaluation_mode(module), evaluation_mode(module)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not module[0].training
    second.__exit__(None, None, None)
    assert module[0].training
    assert module not in forward_pass._evaluating


def test_threads_calibrate_once(bert: SentenceEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def slow(_encoder: SentenceEncoder, rows: list[list[int]], *, first_only: bool) -> list[object]:
        time.sleep(0.05)
        calls.append((rows, first_only))
        return [len(calls)]

    monkeypatch.setattr(layer_cache, "calibrated_blocks", slow)
    layer_cache.clear_cache()
    with ThreadPoolExecutor(4) as pool:
        jobs = [
            pool.submit(layer_cache.lower_blocks, bert, "int8", [[number]], first_only=False)
            for number in range(4)
        ]
    layer_cache.clear_cache()
    assert [job.result() for job in jobs] == [[1]] * 4
    assert len(calls) == 1


# ---------------------------------------------------------------- other ways to start processes


def encode_in_new_process(folder: Path, text: str) -> np.ndarray:
    return SentenceEncoder.load(folder).encode(text)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_new_processes(bert: SentenceEncoder, expected: np.ndarray, method: str) -> None:
    bert.encode(TEXTS[0])
    with multiprocessing.get_context(method).Pool(1) as pool:
        vector = pool.apply_async(encode_in_new_process, (bert.source, TEXTS[0])).get(timeout=120)
        sent = pool.apply_async(bert.encode, (TEXTS[0],)).get(timeout=120)
    np.testing.assert_allclose(vector, expected[0], atol=1e-5)
    np.testing.assert_allclose(sent, expected[0], atol=1e-5)


SERVER = """
from simcse_kit import SentenceEncoder

encoder = SentenceEncoder.load("mini")
{warm}


def app(environ, start_response):
    vector = encoder.encode("a dog")
    many = encoder.encode([f"a dog {{n}} runs over the hill" for n in range(500)])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{{vector.shape}} {{many.shape}}".encode()]
"""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("gunicorn") is None, reason="gunicorn is not installed")
@pytest.mark.parametrize(
    "warm", ["", "encoder.encode('warm')\nimport torch\ntorch.ones(10**6).exp()"]
)
@pytest.mark.parametrize("options", [[], ["--worker-class", "gthread", "--threads", "3"]])
def test_gunicorn(tmp_path: Path, warm: str, options: list[str]) -> None:
    (tmp_path / "server.py").write_text(SERVER.format(warm=warm))
    environment = {k: v for k, v in os.environ.items() if k != "TOKENIZERS_PARALLELISM"}
    environment |= {
        "OMP_NUM_THREADS": "2",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    command = [sys.executable, "-m", "gunicorn", "--preload", "--workers", "2", *options]
    command += ["--bind", f"unix:{tmp_path / 'socket'}", "server:app"]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=log, stdout=log)
    try:
        for _ in range(4):
            assert answer(tmp_path / "socket") == "(256,) (500, 256)"
    finally:
        server.terminate()
        server.wait(30)
    said = (tmp_path / "log").read_text()
    assert "Traceback" not in said
    assert "forked" not in said


def answer(place: Path) -> str:
    """What the server says, once it listens."""
    for _ in range(600):
        with (
            socket.socket(socket.AF_UNIX) as link,
            contextlib.closing(http.client.HTTPConnection("localhost")) as connection,
        ):
            link.settimeout(LIMIT)
            try:
                link.connect(str(place))
            except OSError:
                time.sleep(0.1)
                continue
            connection.sock = link
            connection.request("GET", "/")
            with connection.getresponse() as response:
                return response.read().decode()
    raise AssertionError("the server does not listen")
