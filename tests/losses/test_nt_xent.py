"""NT-Xent against a double loop, and in strips against the whole matrix."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from simcse_kit.errors import ConfigError
from simcse_kit.losses import nt_xent as module
from simcse_kit.losses.info_nce import info_nce
from simcse_kit.losses.nt_xent import nt_xent


def views(items: int, dim: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randn(2, items, dim, generator=generator, dtype=torch.float64)
    return first.requires_grad_(), second.requires_grad_()


def naive(first: Tensor, second: Tensor, tau: float, ids: list[int]) -> float:
    rows = [*first.tolist(), *second.tolist()]
    items = len(ids)

    def score(i: int, j: int) -> float:
        dot = sum(a * b for a, b in zip(rows[i], rows[j], strict=True))
        return math.exp(dot / math.hypot(*rows[i]) / math.hypot(*rows[j]) / tau)

    losses = []
    for i in range(2 * items):
        other = (i + items) % (2 * items)
        rivals = [j for j in range(2 * items) if ids[j % items] != ids[i % items]]
        own = score(i, other)
        losses.append(math.log1p(sum(score(i, j) for j in rivals) / own))
    return sum(losses) / len(losses)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 8),
    st.integers(1, 5),
    st.integers(0, 2**31),
    st.sampled_from([0.05, 0.3, 1.0]),
    st.sampled_from([None, 1, 3, 10**9]),
    st.integers(1, 17),
)
def test_loop_matrix_and_strips_agree(
    items: int, dim: int, seed: int, tau: float, texts: int | None, strip: int
) -> None:
    first, second = views(items, dim, seed)
    ids = None if texts is None else torch.arange(items) % texts
    temperature = torch.tensor(tau, dtype=torch.float64, requires_grad=True)
    loss = nt_xent(first, second, temperature=temperature, ids=ids, allow_no_negatives=True)
    distinct = list(range(items)) if ids is None else ids.tolist()
    assert loss.item() == pytest.approx(naive(first, second, tau, distinct), rel=1e-9, abs=1e-12)
    twice = None if ids is None else torch.cat([ids, ids])
    strips = module._in_strips(torch.cat([first, second]), temperature, twice, strip)
    inputs = [first, second, temperature]
    torch.testing.assert_close(strips, loss, rtol=1e-10, atol=1e-10)
    both = [torch.autograd.grad(x, inputs, materialize_grads=True) for x in (strips, loss)]
    for a, b in zip(*both, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_order_of_the_views_does_not_matter() -> None:
    first, second = views(6, 4, 0)
    torch.testing.assert_close(nt_xent(first, second), nt_xent(second, first))


def test_it_is_info_nce_with_the_views_of_the_same_side_as_negatives() -> None:
    first, second = views(5, 4, 1)
    # alpha = 0 takes a view itself out of its denominator
    there = info_nce(first, second, first.unsqueeze(1), hard_negative_alpha=0.0)
    back = info_nce(second, first, second.unsqueeze(1), hard_negative_alpha=0.0)
    torch.testing.assert_close(nt_xent(first, second), (there + back) / 2)


def test_large_batches_go_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = views(260, 3, 2)
    ids = torch.arange(260) // 2
    strips = nt_xent(first, second, ids=ids)
    monkeypatch.setattr(module, "TILES_FROM", 10**9)
    matrix = nt_xent(first, second, ids=ids)
    assert type(strips.grad_fn) is not type(matrix.grad_fn)
    torch.testing.assert_close(strips, matrix, rtol=1e-10, atol=1e-10)


V = torch.ones(2, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"first": V[0], "second": V[0]}, r"\(N, d\).* got \(3,\) and \(3,\)"),
        ({"first": V, "second": V[:1]}, r"got \(2, 3\) and \(1, 3\)"),
        ({"first": V[:0], "second": V[:0]}, r"N of 1 or more, got \(0, 3\)"),
        ({"first": V, "second": V, "ids": torch.ones(3)}, r"ids must .*\(2,\).* got \(3,\)"),
        ({"first": V, "second": V, "temperature": 0.0}, "temperature must be above 0, got 0.0"),
        ({"first": V[:1], "second": V[:1]}, "a batch of one item has no negatives"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        nt_xent(**arguments)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_one_item_is_allowed_where_asked() -> None:
    assert nt_xent(V[:1], V[:1], allow_no_negatives=True).item() == 0.0
