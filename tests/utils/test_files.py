"""Files appear complete or not at all."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from simcse_kit.errors import ConfigError, DataError
from simcse_kit.utils.files import remove_leftovers, replacement, write_atomic


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fail_half_way(target: Path, error: BaseException) -> None:
    before = target.read_bytes() if target.exists() else None
    with replacement(target, remedy="free some") as path:
        path.write_text("half")
        assert before == (target.read_bytes() if target.exists() else None)
        raise error


@pytest.mark.parametrize("content", ["caf\u00e9\n", b"\x00\xff", ""])
def test_a_file_is_replaced(tmp_path: Path, content: str | bytes) -> None:
    target = tmp_path / "a.txt"
    for _ in range(2):
        write_atomic(target, content)
        assert target.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [DataError("bad line"), KeyboardInterrupt()])
def test_what_stood_there_stays_where_the_block_fails(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "a.txt"
    write_atomic(target, "old")
    with pytest.raises(type(error)):
        fail_half_way(target, error)
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_an_error_of_the_disk_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a\.txt cannot be written: No space left; free some$"):
        fail_half_way(tmp_path / "a.txt", OSError(28, "No space left"))
    assert names(tmp_path) == []
    (tmp_path / "folder").mkdir()
    for target in (tmp_path / "folder", tmp_path / "absent" / "a.txt"):
        with pytest.raises(ConfigError, match="cannot be written") as caught:
            write_atomic(target, "x")
        assert "\n" not in str(caught.value)
    assert names(tmp_path) == ["folder"]


def test_the_umask_says_who_may_read(tmp_path: Path) -> None:
    for mask, mode in ((0o022, 0o644), (0o077, 0o600)):
        before = os.umask(mask)
        try:
            write_atomic(tmp_path / "a.txt", "x")
        finally:
            os.umask(before)
        assert (tmp_path / "a.txt").stat().st_mode & 0o777 == mode


def test_a_name_may_be_as_long_as_names_can_be(tmp_path: Path) -> None:
    target = tmp_path / ("x" * 255)
    write_atomic(target, "x")
    assert names(tmp_path) == [target.name]


def test_leftovers_of_killed_processes_are_removed(tmp_path: Path) -> None:
    old, new = tmp_path / f".{'a' * 16}.tmp", tmp_path / f".{'b' * 16}.tmp"
    kept = [tmp_path / name for name in ("mine.tmp", ".mine.tmp", "a.txt")]
    for path in (old, new, *kept):
        path.write_text("x")
    os.utime(old, (0, 0))
    remove_leftovers(tmp_path, at_work=True)
    assert not old.exists()
    assert new.exists()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == sorted(path.name for path in kept)


@pytest.mark.skipif(sys.platform == "win32", reason="pipes")
def test_a_pipe_is_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match="not a regular file; give another place"):
        write_atomic(pipe, "x")
    assert pipe.is_fifo()
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]
