"""Any file is read or refused in one line, and leaves nothing behind."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Simcse
from tests.cli.test_commands import refused
from tests.hostile_files import CASES, Case


def test_there_are_many() -> None:
    assert len(CASES) >= 75
    assert sum(not case.said for case in CASES.values()) < 15


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="/proc and /dev are Linux's")
@pytest.mark.parametrize("name", CASES)
def test_it_is_read_or_refused(
    name: str, simcse: Simcse, tmp_path: Path, tiny_encoder_dir: Path
) -> None:
    case: Case = CASES[name]
    home = tmp_path / "home"
    home.mkdir()
    path = case.write(home)
    before = {entry.name for entry in home.iterdir()}
    output = tmp_path / "out"
    options = ["--model", tiny_encoder_dir, "--batch-size", "4", "--max-steps", "1", *case.options]
    done = simcse("-q", "train", path, *options, "--output", output)
    assert {entry.name for entry in home.iterdir()} == before
    if not case.said:
        assert done.code == 0, done.err
        return
    refused(done, *(word.format(file=path) for word in case.said))
    assert done.err.count("\n") == 1
    assert "\x1b" not in done.err
    assert not output.exists()
    cache = tmp_path / "cache"
    assert not any(entry.is_file() for entry in cache.rglob("*"))


@pytest.mark.long
def test_a_bomb_takes_little_memory_and_time(simcse: Simcse, tmp_path: Path) -> None:
    path = CASES["gzip bomb"].write(tmp_path)
    most = [0]
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.01):
            status = Path("/proc/self/status").read_text()
            kilobytes = int(status.partition("VmRSS:")[2].split()[0])
            most[0] = max(most[0], kilobytes)

    if not Path("/proc/self/status").exists():
        pytest.skip("no /proc")
    watcher = threading.Thread(target=look)
    status = Path("/proc/self/status").read_text()
    start = int(status.partition("VmRSS:")[2].split()[0])
    watcher.start()
    began = time.monotonic()
    try:
        refused(simcse("encode", "mini", path, "--output", tmp_path / "v.npy"), "longer than")
    finally:
        stop.set()
        watcher.join()
    assert most[0] - start < 100_000
    assert time.monotonic() - began < 20
