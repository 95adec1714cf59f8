"""Memory that the C library and oneDNN keep for later use."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from typing import Any

__all__ = ["give_back", "keep_few_kernels"]


def give_back() -> None:
    """Return freed memory to the system with glibc's malloc_trim; do nothing elsewhere.

    Tensors of varying sizes, allocated and freed by several threads, fragment the heap, and glibc
    does not return the holes: a process can grow by hundreds of megabytes within hours. A call
    takes milliseconds.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


def keep_few_kernels() -> None:
    """Limit oneDNN's cache to the kernels of the latest batch shapes.

    This suits programs with many large forward passes, where compiling the kernels of a shape
    again costs little. The limit takes effect only before oneDNN's first kernel, and a number set
    by the user is kept. Torch has no setting for it.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")


@cache
def _trim() -> Any:
    if sys.platform != "linux":
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
