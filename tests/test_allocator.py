"""Freed memory goes back to the system."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from simcse_kit.allocator import give_back


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
