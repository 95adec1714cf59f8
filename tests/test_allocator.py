"""Libraries keep no more memory than is of use."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from simcse_kit.allocator import give_back, keep_few_kernels


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
    give_back()
    assert own_megabytes() < full - 80
    assert len(blocks) == 2000


NAME = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
PROGRAM = """
import torch
from simcse_kit.allocator import keep_few_kernels
if {limited}:
    keep_few_kernels()
linear = torch.ops.mkldnn
weight = linear._reorder_linear_weight(torch.randn(64, 64), None)
for rows in (*range(32, 32 * 101, 32), 32):
    linear._linear_pointwise(torch.randn(rows, 64), weight, None, "none", [], "")
"""


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
