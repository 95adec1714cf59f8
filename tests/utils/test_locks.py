"""Locks between processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from simcse_kit.errors import ConfigError
from simcse_kit.utils.locks import is_locked, locked

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no flock")

HOLD = """
import sys, time
from pathlib import Path
from simcse_kit.utils.locks import locked
with locked(Path(sys.argv[1]), busy="is busy"):
    print("held", flush=True)
    sys.stdin.readline()
"""


def holder(path: Path) -> subprocess.Popen[str]:
    """A process that holds the lock until it is sent a line."""
    command = [sys.executable, "-c", HOLD, str(path)]
    process = subprocess.Popen(command, stdin=-1, stdout=-1, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_told_who_holds_it_and_a_killed_holder_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    process = holder(path)
    assert is_locked(path)
    with (
        pytest.raises(ConfigError, match=f"process {process.pid} is busy"),
        locked(path, busy="is busy"),
    ):
        pytest.fail("two hold it")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert path.exists()
    assert not is_locked(path)
    with locked(path, busy=""):
        assert is_locked(path)
    assert not path.exists()
    assert not is_locked(path)


def test_one_that_waits_comes_after(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    process = holder(path)
    waiting = subprocess.Popen(
        [sys.executable, "-c", HOLD.replace('busy"', 'busy", wait=True'), str(path)],
        stdin=-1,
        stdout=-1,
        text=True,
    )
    process.communicate("\n")
    assert waiting.communicate("\n")[0] == "held\n"
    assert not path.exists()


def test_many_at_once_hold_it_one_after_the_other(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from simcse_kit.utils.locks import locked
home = Path(sys.argv[1])
for _ in range(15):
    with locked(home / "lock", busy="", wait=True):
        number = int((home / "count").read_text())
        (home / "count").write_text(str(number + 1))
"""
    (tmp_path / "count").write_text("0")
    command = [sys.executable, "-c", script, str(tmp_path)]
    for process in [subprocess.Popen(command) for _ in range(3)]:
        assert process.wait() == 0
    assert (tmp_path / "count").read_text() == "45"
    assert [path.name for path in tmp_path.iterdir()] == ["count"]


def test_a_disk_without_locks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unknown(*_: object) -> None:
        raise OSError(38, os.strerror(38))

    monkeypatch.setattr("fcntl.flock", unknown)
    with locked(tmp_path / "lock", busy=""):
        assert "knows no locks" in caplog.text
    assert not is_locked(tmp_path / "lock")
