"""The order of the rows of an epoch."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from simcse_kit.training.batching.order import ShuffledOrder


@given(rows=st.integers(1, 400), seed=st.integers(0, 10**6), epoch=st.integers(0, 50))
def test_every_row_once(rows: int, seed: int, epoch: int) -> None:
    order = ShuffledOrder(rows, seed)
    order.set_epoch(epoch)
    # the numbers count on from epoch to epoch
    assert sorted(order) == list(range(epoch * rows, (epoch + 1) * rows))
    assert len(order) == rows


def test_seed_and_epoch_make_the_order() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        sampler = ShuffledOrder(1000, seed)
        sampler.set_epoch(epoch)
        return [index % 1000 for index in sampler]

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)


def test_the_order_looks_random() -> None:
    positions = np.arange(5000)
    follows, jumps = [], []
    for seed in range(20):
        order = np.array(list(ShuffledOrder(5000, seed)))
        follows.append(abs(np.corrcoef(positions, order)[0, 1]))
        jumps.append(np.mean(np.abs(np.diff(order)) < 50))
    # A uniform permutation: correlation about 1/sqrt(n) = .014; near neighbours 2 * 50 / n = .02.
    assert np.mean(follows) < 0.03
    assert 0.01 < np.mean(jumps) < 0.03


def test_first_rows_do_not_need_the_whole_permutation() -> None:
    first = iter(ShuffledOrder(10**12, 0))
    assert len({next(first) for _ in range(100)}) == 100
