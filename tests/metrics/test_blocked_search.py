"""Exact search over blocks of vectors."""

from __future__ import annotations

import numpy as np
import pytest

from simcse_kit.metrics.blocked_search import Block, top_k_in_blocks


def vectors(rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-2, 3, size=(rows, 6)).astype(np.float32)


def blocks_of(keys: np.ndarray, size: int, alive: np.ndarray | None = None) -> list[Block]:
    return [
        (at, keys[at : at + size], None if alive is None else alive[at : at + size])
        for at in range(0, len(keys), size)
    ]


@pytest.mark.parametrize("size", [1, 7, 300])
@pytest.mark.parametrize("k", [1, 5, 40])
def test_the_result_equals_a_sort_of_all_products_with_ties_in_the_order_of_the_rows(
    size: int, k: int
) -> None:
    keys, queries = vectors(300, 0), vectors(270, 1)  # small integers have many equal products
    alive = np.random.default_rng(2).random(300) < 0.7
    products = queries @ keys.T
    products[:, ~alive] = -np.inf
    order = np.argsort(-products, axis=1, kind="stable")[:, :k]
    scores, rows = top_k_in_blocks(queries, blocks_of(keys, size, alive), k)
    np.testing.assert_array_equal(rows, order)
    np.testing.assert_array_equal(scores, np.take_along_axis(products, order, 1))


def test_rows_end_with_minus_one_where_there_are_fewer_vectors() -> None:
    alive = np.array([True, False, True])
    scores, rows = top_k_in_blocks(vectors(2, 1), blocks_of(vectors(3, 0), 2, alive), 4)
    assert {*rows[0, :2]} == {0, 2}
    assert (rows[:, 2:] == -1).all()
    assert np.isneginf(scores[:, 2:]).all()
    assert (top_k_in_blocks(vectors(2, 1), [], 3)[1] == -1).all()


def test_half_precision_is_compared_in_single_precision() -> None:
    keys = vectors(50, 0)
    found = top_k_in_blocks(vectors(3, 1), blocks_of(keys.astype(np.float16), 20), 5)
    expected = top_k_in_blocks(vectors(3, 1), blocks_of(keys, 50), 5)
    np.testing.assert_array_equal(found[1], expected[1])
