"""Memory that the C library keeps for later after it was freed."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any

__all__ = ["give_back"]


def give_back() -> None:
    """Hand freed memory back to the system, where the C library can (glibc); elsewhere nothing.

    Tensors of ever new sizes, made and freed by several threads, leave holes in the heap that
    glibc neither fills nor gives back by itself: in hours a process grows by hundreds of megabytes.
    Takes milliseconds, and some more until the memory is there again.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Any:
    if sys.platform != "linux":
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
