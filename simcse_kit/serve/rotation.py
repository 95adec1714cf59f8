"""Round robin over requests: fair batches of bounded cost."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

__all__ = ["Rotation", "Slice"]


class _Request(Protocol):
    gone: bool


RequestT = TypeVar("RequestT", bound=_Request)


@dataclass(frozen=True)
class Slice(Generic[RequestT]):
    """A part of a request in a batch: its items from ``start`` to before ``stop``."""

    request: RequestT
    start: int
    stop: int


@dataclass
class _Turn(Generic[RequestT]):
    request: RequestT
    costs: Sequence[int]
    at: int = 0


class Rotation(Generic[RequestT]):
    """Requests that take turns in batches.

    In each turn a request puts items of at most ``quantum`` cost into the batch, and at least one
    item, so a small request waits for one quantum of each other request and not for all of a large
    one (deficit round robin without the deficit: Shreedhar & Varghese 1996).

    Args:
        budget: Maximum cost of a batch; an item that costs more gets a batch of its own.
        quantum: Maximum cost of a turn.

    Examples:
        >>> from types import SimpleNamespace
        >>> large, small = SimpleNamespace(gone=False), SimpleNamespace(gone=False)
        >>> rotation = Rotation(budget=4, quantum=2)
        >>> rotation.add(large, [1] * 100)
        >>> rotation.add(small, [1])
        >>> [(part.request is large, part.start, part.stop) for part in rotation.take()]
        [(True, 0, 2), (False, 0, 1), (True, 2, 3)]
    """

    def __init__(self, budget: int, quantum: int):
        self._budget = budget
        self._quantum = quantum
        self._turns: deque[_Turn[RequestT]] = deque()

    def __bool__(self) -> bool:
        return bool(self._turns)

    def add(self, request: RequestT, costs: Sequence[int]) -> None:
        """Add a request, with the cost of each of its items; its first turn comes last."""
        self._turns.append(_Turn(request, costs))

    def take(self) -> list[Slice[RequestT]]:
        """Fill one batch; requests that are gone are dropped.

        Returns:
            The parts of the batch, empty if no request is left. The items of a request come in
            their order, each in exactly one batch.
        """
        batch: list[Slice[RequestT]] = []
        room = self._budget
        while self._turns:
            turn = self._turns[0]
            if turn.request.gone:
                self._turns.popleft()
                continue
            if batch and turn.costs[turn.at] > room:
                break
            stop, cost = turn.at + 1, turn.costs[turn.at]
            most = min(self._quantum, room)
            while stop < len(turn.costs) and cost + turn.costs[stop] <= most:
                cost += turn.costs[stop]
                stop += 1
            batch.append(Slice(turn.request, turn.at, stop))
            turn.at = stop
            room -= cost
            self._turns.popleft()
            if stop < len(turn.costs):
                self._turns.append(turn)
        return batch

    def clear(self) -> list[RequestT]:
        """Remove all requests and return them."""
        requests = [turn.request for turn in self._turns]
        self._turns.clear()
        return requests
