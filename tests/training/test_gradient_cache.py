"""Gradient caching: the same gradients as the plain step, with the dropout masks replayed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from simcse_kit.data.collate import Collator
from simcse_kit.data.readers import Example
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.packing import run
from simcse_kit.methods.common.base import MethodOutput
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.simcse import SimCSE, SimCSEConfig
from simcse_kit.training.batching.gradient_cache import GradientCache, chunks_of, shares_of
from tests.small_data import sentences

VIEWS = {"texts": 1, "pairs": 2, "triplets": 3}
Make = Callable[..., "LearnedTemperature"]
Gradients = dict[str, Tensor]


class LearnedTemperature(SimCSE):
    """SimCSE with a weight that the loss alone knows, and with embeddings on record."""

    def __init__(self, encoder: SentenceEncoder, config: SimCSEConfig):
        super().__init__(encoder, config)
        self.scale = nn.Parameter(torch.tensor(1.3))
        self.embedded: list[tuple[Tensor, Tensor]] = []

    def embed(self, input_ids: Tensor, attention_mask: Tensor, views: Tensor) -> Tensor:
        embeddings = super().embed(input_ids, attention_mask, views)
        self.embedded.append((input_ids, embeddings))
        return embeddings

    def loss(self, embeddings: Tensor, batch: Batch) -> MethodOutput:
        output = super().loss(embeddings, batch)
        return MethodOutput(output.loss * self.scale.square(), output.logs)


@pytest.fixture
def make(tiny_encoder_dir: Path) -> Make:
    def build(dtype: torch.dtype = torch.float64, **options: Any) -> LearnedTemperature:
        torch.manual_seed(0)
        encoder = SentenceEncoder.load(tiny_encoder_dir)
        return LearnedTemperature(encoder, SimCSEConfig(**options)).train().to(dtype)

    return build


def batch_of(method: SimCSE, kind: str = "texts", rows: int = 12) -> Batch:
    texts = sentences(rows * VIEWS[kind], seed=4)
    examples = [Example(tuple(texts[row::rows])) for row in range(rows)]
    collate = Collator(method.encoder.tokenize, 0, tuple(range(VIEWS[kind])))
    return Batch(**collate(examples))


def plain(method: SimCSE, batch: Batch, seed: int = 5) -> tuple[float, Gradients]:
    return gradients(method, lambda: method(**vars(batch)), seed)


def gradients(
    method: SimCSE, forward: Callable[[], MethodOutput], seed: int = 5
) -> tuple[float, Gradients]:
    method.zero_grad()
    torch.manual_seed(seed)
    loss = forward().loss
    torch.autograd.backward(loss)
    named = dict(method.named_parameters())
    return loss.item(), {n: w.grad.clone() for n, w in named.items() if w.grad is not None}


def assert_same(one: Gradients, other: Gradients, tolerance: float = 1e-9) -> None:
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=tolerance, msg=name)


# ------------------------------------------------------------------ equal to the plain step


@pytest.mark.parametrize(
    ("kind", "tokens", "kept"),
    [("texts", 1, 0), ("texts", 30, 60), ("pairs", 30, 0), ("triplets", 50, 0), ("pairs", 9999, 0)],
)
def test_equals_the_plain_step_without_dropout(
    make: Make, kind: str, tokens: int, kept: int
) -> None:
    method = make(dropout=0.0)
    batch = batch_of(method, kind)
    loss, expected = plain(method, batch)
    cache = GradientCache(tokens, kept_tokens=kept)
    cached_loss, found = gradients(method, lambda: cache(method, batch))
    assert cached_loss == pytest.approx(loss, abs=1e-12)
    assert_same(found, expected)
    assert {"head.linear.weight", "scale"} <= found.keys()
    assert found["scale"].abs() > 1e-3


@pytest.mark.parametrize("kept", [0, 80, 10_000])
def test_with_dropout_it_is_the_gradient_of_the_embeddings_it_has_seen(
    make: Make, kept: int
) -> None:
    method = make()
    batch = batch_of(method, "pairs")

    def all_graphs_kept() -> MethodOutput:
        """The same chunks, by plain autograd."""
        ids, mask = batch.rows()
        chunks = chunks_of(mask, 40)
        assert len(chunks) > 3
        views = batch.view_numbers()
        seed = int(torch.randint(1 << 62, ()))
        parts = []
        for number, c in enumerate(chunks):
            with torch.random.fork_rng():
                torch.manual_seed(seed + number)
                parts.append(
                    method.embed(ids[c.rows, : c.longest], mask[c.rows, : c.longest], views[c.rows])
                )
        order = torch.cat([chunk.rows for chunk in chunks]).argsort()
        return method.loss(torch.cat(parts)[order].unflatten(0, batch.shape), batch)

    expected = gradients(method, all_graphs_kept)
    cache = GradientCache(40, kept_tokens=kept)
    found = gradients(method, lambda: cache(method, batch))
    assert found[0] == pytest.approx(expected[0], abs=1e-12)
    assert_same(found[1], expected[1])
    assert found[0] != plain(method, batch)[0]  # other masks than in one piece


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.integers(1, 6))
@settings(deadline=None, max_examples=60)
def test_shares_hold_every_row_once_and_like_amounts(lengths: list[int], parts: int) -> None:
    mask = (torch.arange(9) < torch.tensor(lengths)[:, None]).long()
    shares = shares_of(mask, parts)
    assert sorted(torch.cat([share.rows for share in shares]).tolist()) == list(range(len(lengths)))
    assert len(shares) == min(parts, len(lengths))
    tokens = [int(mask[share.rows].sum()) for share in shares]
    assert max(tokens) - min(tokens) <= 9
    assert all(share.longest == mask[share.rows].sum(dim=1).max() for share in shares)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.integers(1, 40))
@settings(deadline=None, max_examples=60)
def test_chunks_hold_every_row_once_within_the_budget(lengths: list[int], tokens: int) -> None:
    mask = (torch.arange(9) < torch.tensor(lengths)[:, None]).long()
    chunks = chunks_of(mask, tokens)
    assert sorted(torch.cat([chunk.rows for chunk in chunks]).tolist()) == list(range(len(lengths)))
    for chunk in chunks:
        assert chunk.longest == mask[chunk.rows].sum(dim=1).max()
        assert chunk.tokens <= tokens or len(chunk.rows) == 1
        assert chunk.rows.tolist() == sorted(chunk.rows.tolist())
    if sum(lengths) * 9 <= tokens:
        assert len(chunks) == 1


# ------------------------------------------------------------------ both passes


@pytest.mark.parametrize("kept", [0, 50])
def test_both_passes_draw_the_same_masks(make: Make, kept: int) -> None:
    method = make(torch.float32)
    batch = batch_of(method)
    total = 2 * int(batch.attention_mask.sum())
    method.embedded.clear()
    torch.manual_seed(1)
    output = GradientCache(24, kept_tokens=kept)(method, batch)
    first = list(method.embedded)
    torch.autograd.backward(output.loss)
    again = method.embedded[len(first) :]
    kept_chunks = len(first) - len(again)
    assert kept_chunks == (1 if kept == 0 else 2)
    for (ids, one), (same_ids, other) in zip(first[kept_chunks:], again, strict=True):
        assert torch.equal(ids, same_ids)
        assert torch.equal(one, other)
    assert sum(int((ids != 0).sum()) for ids, _ in first) == total
    # nothing holds on to the graph of a chunk that is embedded twice
    assert [one.requires_grad for _, one in first] == [
        number < kept_chunks for number in range(len(first))
    ]


def test_the_next_step_draws_new_masks(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    method = make(torch.float32)
    batch = batch_of(method)
    loss = method.loss
    # A loss may draw random numbers too, after the embeddings: replaying them rewinds to before.
    monkeypatch.setattr(method, "loss", lambda *given: (torch.rand(3), loss(*given))[1])
    torch.manual_seed(1)
    output = GradientCache(24)(method, batch)
    expected = torch.get_rng_state()
    torch.autograd.backward(output.loss)
    assert torch.equal(torch.get_rng_state(), expected)


def test_kept_graphs_change_nothing_but_the_time(make: Make) -> None:
    method = make(torch.float32)
    batch = batch_of(method)
    runs = [
        gradients(method, lambda kept=kept: GradientCache(24, kept_tokens=kept)(method, batch))  # type: ignore[misc]
        for kept in (0, 60, 10_000)
    ]
    for loss, found in runs[1:]:
        assert loss == runs[0][0]
        assert all(torch.equal(found[name], runs[0][1][name]) for name in found)


def test_autocast_gives_gradients_to_every_weight(make: Make) -> None:
    method = make(torch.float32)
    batch = batch_of(method)
    cache = GradientCache(24, autocast=lambda: torch.autocast("cpu", torch.bfloat16))
    _, found = gradients(method, lambda: cache(method, batch))
    assert {embeddings.dtype for _, embeddings in method.embedded} == {torch.bfloat16}
    assert found.keys() == dict(method.named_parameters()).keys()
    assert all(gradient.any() for gradient in found.values())


def test_without_gradients_it_is_the_loss_alone(make: Make) -> None:
    method = make(dropout=0.0)
    batch = batch_of(method)
    with torch.no_grad():
        output = GradientCache(24)(method, batch)
    assert not output.loss.requires_grad
    assert output.loss.item() == pytest.approx(plain(method, batch)[0], abs=1e-12)


def test_masks_are_replayed_where_several_threads_share_a_chunk(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropout is drawn for each share of the rows: with and without a graph, in the same way."""
    monkeypatch.setattr(run, "SHARED_FROM", 8)
    shared: list[bool] = []
    real = run.run_shared

    def watched(*arguments: Any) -> list[Tensor]:
        shared.append(torch.is_grad_enabled())
        return real(*arguments)

    monkeypatch.setattr(run, "run_shared", watched)
    method = make()
    batch = batch_of(method, "pairs")
    rows = (*batch.rows(), batch.view_numbers())
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        torch.manual_seed(0)
        with torch.no_grad():
            first = method.embed(*rows)
        torch.manual_seed(0)
        again = method.embed(*rows)
    finally:
        torch.set_num_threads(threads)
    assert shared == [False, True]
    assert again.requires_grad
    assert not first.requires_grad
    assert torch.equal(first, again.detach())
