"""Fair batches: laws of the rotation."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from simcse_kit.serve.rotation import Rotation

COSTS = st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=20), max_size=8)


@dataclass(eq=False)
class Request:
    gone: bool = False


def batches(rotation: Rotation[Request]) -> list[list[tuple[Request, int, int]]]:
    found = []
    while batch := rotation.take():
        found.append([(part.request, part.start, part.stop) for part in batch])
    return found


@given(COSTS, st.integers(1, 50), st.integers(1, 50))
@settings(max_examples=30, deadline=None)
def test_every_item_comes_once_in_order_and_batches_keep_to_the_budget(
    costs: list[list[int]], budget: int, quantum: int
) -> None:
    rotation: Rotation[Request] = Rotation(budget, quantum)
    requests = [Request() for _ in costs]
    by_request = dict(zip(requests, costs, strict=True))
    for request, own in by_request.items():
        rotation.add(request, own)
    seen: dict[Request, list[int]] = {request: [] for request in requests}
    for batch in batches(rotation):
        total = sum(sum(by_request[request][start:stop]) for request, start, stop in batch)
        items = sum(stop - start for _, start, stop in batch)
        assert total <= budget or items == 1
        for request, start, stop in batch:
            seen[request] += range(start, stop)
    assert [seen[request] for request in requests] == [list(range(len(own))) for own in costs]


@given(st.integers(1, 6), st.integers(1, 10))
@settings(max_examples=15, deadline=None)
def test_a_small_request_waits_for_one_turn_of_each_large_one(large: int, cost: int) -> None:
    rotation: Rotation[Request] = Rotation(40, 10)
    for _ in range(large):
        rotation.add(Request(), [5] * 1000)
    small = Request()
    rotation.add(small, [cost])
    needed = next(
        number
        for number, batch in enumerate(batches(rotation))
        if any(request is small for request, _, _ in batch)
    )
    assert needed <= (10 * large + cost - 1) // 40


def test_requests_that_are_gone_are_dropped() -> None:
    rotation: Rotation[Request] = Rotation(2, 2)
    gone, kept = Request(), Request()
    rotation.add(gone, [1] * 100)
    rotation.add(kept, [1])
    assert rotation.take()[0].request is gone
    gone.gone = True
    assert batches(rotation) == [[(kept, 0, 1)]]
    assert not rotation
