"""Memory that libraries keep for later: the C library what was freed, oneDNN its kernels."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from typing import Any

__all__ = ["give_back", "keep_few_kernels"]


def give_back() -> None:
    """Hand freed memory back to the system, where the C library can (glibc); elsewhere nothing.

    Tensors of ever new sizes, made and freed by several threads, leave holes in the heap that
    glibc neither fills nor gives back by itself: in hours a process grows by hundreds of megabytes.
    Takes milliseconds, and some more until the memory is there again.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


def keep_few_kernels() -> None:
    """Let oneDNN keep the kernels of the latest shapes of batches, not of the latest thousand.

    For programs that make many large passes: few shapes are needed again and again, and to make
    the kernels of one anew is quick beside a large pass. Acts before oneDNN's first kernel only,
    and not where the user has set the number. Torch itself has no such setting.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")


@cache
def _trim() -> Any:
    if sys.platform != "linux":
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
