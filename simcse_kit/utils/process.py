"""Memory of the process: garbage collection, and what the C library and oneDNN keep."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

__all__ = ["collection_paused", "keep_few_kernels", "return_freed_memory"]


@contextmanager
def collection_paused(*, keep: bool = False) -> Iterator[None]:
    """Pause cyclic garbage collection inside the block.

    Importing torch and transformers creates millions of long-lived objects, and scanning them
    repeatedly takes about a fifth of the time.

    Args:
        keep: exclude all objects that exist at the end of the block from later collections. This
            is for programs only; in a library, cycles among these objects would leak.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
        if keep:
            gc.freeze()
    finally:
        gc.enable()


def return_freed_memory() -> None:
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
