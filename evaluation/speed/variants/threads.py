"""The same threads for every variant."""

from __future__ import annotations

import os

THREADS = int(os.environ.get("BENCH_THREADS", "1"))


def pin() -> None:
    """Torch reads the environment at import, but a library may have set its own number since."""
    import torch

    torch.set_num_threads(THREADS)
