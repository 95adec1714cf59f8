"""What makes a start quick: no search for garbage where there is none."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["collection_paused"]


@contextmanager
def collection_paused(*, keep: bool = False) -> Iterator[None]:
    """No cyclic garbage collection inside.

    Importing torch and transformers makes millions of objects, nearly all of which stay; looking
    through them again and again takes about a fifth of the time.

    Args:
        keep: never look through what is there at the end of the block. For programs only, whose
            modules and models stay: in a library, cycles among these objects would leak.
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
