"""Libraries return memory that they no longer use."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from simcse_kit.cli.main import main
from simcse_kit.encoder import stream
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.utils.process import keep_few_kernels, return_freed_memory


def own_megabytes() -> float:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(r"RssAnon:\s+(\d+)", status)
    assert found is not None
    return int(found[1]) / 1024


@pytest.mark.skipif(sys.platform != "linux", reason="measured with /proc")
def test_freed_memory_is_given_back() -> None:
    # Every second block stays, so that the heap cannot simply shrink at its end.
    blocks = [bytearray(60_000) for _ in range(4000)]
    full = own_megabytes()
    blocks = blocks[::2]
    return_freed_memory()
    assert own_megabytes() < full - 80
    assert len(blocks) == 2000


NAME = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
PROGRAM = """
import torch
from simcse_kit.utils.process import keep_few_kernels
if {limited}:
    keep_few_kernels()
linear = torch.ops.mkldnn
weight = linear._reorder_linear_weight(torch.randn(64, 64), None)
for rows in (*range(32, 32 * 101, 32), 32):
    linear._linear_pointwise(torch.randn(rows, 64), weight, None, "none", [], "")
"""


@pytest.mark.long
def test_old_kernels_go() -> None:
    """Where torch has oneDNN: a hundred shapes, and then the first one again."""

    def made(limited: bool) -> int:
        program = PROGRAM.format(limited=limited)
        environment = {k: v for k, v in os.environ.items() if k != NAME} | {"ONEDNN_VERBOSE": "2"}
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout.count("create:cache_miss,cpu,inner_product")

    all_kept = made(limited=False)
    if not all_kept:
        pytest.skip("this processor's kernels are not oneDNN's")
    assert made(limited=True) == all_kept + 1


def test_the_users_own_number_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "7")
    keep_few_kernels()
    assert os.environ[NAME] == "7"


def test_a_stream_gives_back_between_chunks(
    monkeypatch: pytest.MonkeyPatch, tiny_encoder_dir: Path
) -> None:
    given: list[None] = []
    monkeypatch.setattr(stream, "return_freed_memory", lambda: given.append(None))
    encoder = SentenceEncoder.load(tiny_encoder_dir)
    list(encoder.encode_stream(["a cat"] * 6, chunk=2))
    assert not given
    monkeypatch.setattr(stream, "_GIVE_BACK_EVERY", -1.0)
    list(encoder.encode_stream(["a cat"] * 6, chunk=2))
    assert len(given) == 3


def test_encode_keeps_few_kernels(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_encoder_dir: Path
) -> None:
    monkeypatch.setenv(NAME, "to be restored")
    monkeypatch.delenv(NAME)
    text = tmp_path / "a.txt"
    text.write_text("a cat\n")
    command = ["simcse", "encode", str(tiny_encoder_dir), str(text)]
    monkeypatch.setattr(sys, "argv", [*command, "--output", str(tmp_path / "v.npy")])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    assert os.environ[NAME] == "64"
