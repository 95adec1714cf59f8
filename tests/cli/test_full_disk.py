"""A full disk: a one-line error, no half-written output, and finished parts are kept."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Simcse
from tests.cli.test_commands import refused
from tests.small_data import sentences

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits and /proc are Linux's")


def limited(size: int, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command in a process whose files may have at most ``size`` bytes."""
    return subprocess.run(
        [sys.executable, "-m", "simcse_kit", "-q", *map(str, arguments)],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
    )


def one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    last = done.stderr.rstrip("\n").rpartition("\n")[2]
    assert done.returncode == 2, done.stderr
    assert last.startswith("simcse: error: ")
    assert all(word in last for word in words), last
    assert "Traceback" not in done.stderr


@pytest.mark.long
def test_encoding(tmp_path: Path, tiny_encoder_dir: Path, simcse: Simcse) -> None:
    text = tmp_path / "a.txt"
    text.write_text("\n".join(sentences(60)), encoding="utf-8")
    options = [tiny_encoder_dir, text, "--shard-rows", "20", "--output", tmp_path / "v.npy"]
    # Room for shards of 20 x 32 numbers, not for the 60 together.
    done = limited(4000, "encode", *options)
    one_line(done, "v.npy", "cannot be written: File too large", "the same command continues")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "v.npy.parts"]
    done = simcse("encode", *options)
    assert done.code == 0
    assert "60 of them from before" in done.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "v.npy"]


@pytest.mark.long
def test_training(tmp_path: Path, tiny_encoder_dir: Path) -> None:
    text, output = tmp_path / "a.txt", tmp_path / "out"
    text.write_text("\n".join(sentences(60)), encoding="utf-8")
    options = ["--model", tiny_encoder_dir, "--batch-size", "8", "--max-steps", "4"]
    done = limited(60_000, "train", text, *options, "--output", output)
    one_line(done, "checkpoint-4 cannot be written", "--resume")
    assert not list(output.rglob("*checkpoint-*"))
    assert not (output / "config.json").exists()


@pytest.mark.parametrize("command", ["train", "encode"])
def test_a_folder_that_takes_nothing(
    command: str, simcse: Simcse, tmp_path: Path, tiny_encoder_dir: Path
) -> None:
    text = tmp_path / "a.txt"
    text.write_text("\n".join(sentences(60)), encoding="utf-8")
    if command == "train":
        options = [text, "--model", tiny_encoder_dir, "--batch-size", "8", "--max-steps", "1"]
        done = simcse("-q", command, *options, "--output", "/proc/out")
    else:
        done = simcse("-q", command, tiny_encoder_dir, text, "--output", "/proc/v.npy")
    refused(done, "/proc/")
