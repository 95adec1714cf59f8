"""The number of threads of every variant."""

from __future__ import annotations

import os

THREADS = int(os.environ.get("BENCH_THREADS", "1"))


def pin() -> None:
    """Set torch's number of threads, which a library may have changed since the import."""
    import torch

    torch.set_num_threads(THREADS)
