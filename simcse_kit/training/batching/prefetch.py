"""Batches that a thread collates ahead of the training steps."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from transformers import TrainerCallback

__all__ = ["Ahead", "Prefetch"]

T = TypeVar("T")

_DEPTH = 2


class Ahead(Generic[T]):
    """Iterator over the items of another one, which a thread computes in advance.

    The items keep their order, and how many are computed at each time does not depend on timing.

    Args:
        items: iterator that only the thread uses from now on.
        depth: number of items that are computed in advance.

    Examples:
        >>> squares = Ahead(number * number for number in range(4))
        >>> next(squares), list(squares)
        (0, [1, 4, 9])
    """

    def __init__(self, items: Iterator[T], depth: int = _DEPTH):
        self._items = items
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._coming: deque[Future[Any]] = deque()
        self._end = object()
        for _ in range(depth):
            self._request()

    def _request(self) -> None:
        self._coming.append(self._thread.submit(next, self._items, self._end))

    def __iter__(self) -> Ahead[T]:
        return self

    def __next__(self) -> T:
        if not self._coming:
            raise StopIteration
        item: T = self._coming.popleft().result()
        if item is self._end:
            self.close()
            raise StopIteration
        self._request()
        return item

    def close(self) -> None:
        """Wait for the items that were requested, and end the thread."""
        self._thread.shutdown()
        self._coming.clear()


class Prefetch(TrainerCallback):
    """Collation of the batches of each epoch in a thread, for devices that work behind the host."""

    def __init__(self) -> None:
        self._batches: Any = None
        self._ahead: Ahead[Any] | None = None

    def of(self, batches: Iterator[Any]) -> Ahead[Any]:
        """Return an iterator over the same batches; each call gives the same one for an epoch."""
        if self._ahead is None or self._batches is not batches:
            self.close()
            self._batches, self._ahead = batches, Ahead(batches)
        return self._ahead

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        """End the thread before the trainer prepares the next epoch."""
        self.close()

    def close(self) -> None:
        """End the thread if there is one."""
        if self._ahead is not None:
            self._ahead.close()
        self._batches = self._ahead = None
