"""Packed batches on an accelerator: index tensors instead of loops over groups of rows.

On the CPU the same code runs with :func:`indexed`; on the meta device it must not read a value.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.encoder.inference import vectors_of_rows
from simcse_kit.encoder.packing import kernels
from simcse_kit.encoder.packing.attention import block_attention
from simcse_kit.encoder.packing.kernels import KERNELS, Scores, padded_attention
from simcse_kit.encoder.packing.layout import Layout, Window, layout_of, pack, pack_rows
from simcse_kit.encoder.packing.run import packed_states
from simcse_kit.encoder.pooling import POOLINGS, pool_packed
from simcse_kit.encoder.row_lengths import remember_lengths
from tests.encoder.test_packing import LENGTHS, PACKED, backbone_of, batch, can_pack, packed, padded
from tests.meta import META, operators

CPU = torch.device("cpu")


@pytest.fixture
def indexed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let packed batches on the CPU run as on an accelerator."""
    monkeypatch.setattr("simcse_kit.encoder.packing.layout.uses_index", lambda _device: True)


# ---------------------------------------------------------------- layout


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=12))
def test_an_indexed_layout_describes_every_token(lengths: list[int]) -> None:
    ids, mask = batch(lengths)
    plain, groups = pack(ids, mask)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("simcse_kit.encoder.packing.layout.uses_index", lambda _device: True)
        tokens, layout = pack(ids, mask)
        rows = [row[:length].tolist() for row, length in zip(ids, lengths, strict=True)]
        again, same = pack_rows(rows, CPU, multiple=8)  # no filler rows on accelerators
    index = layout.index
    assert index is not None
    assert torch.equal(tokens, plain)
    assert torch.equal(again, plain)
    assert layout.groups == groups.groups == same.groups
    assert torch.equal(layout.order, groups.order)
    assert torch.equal(layout.positions(CPU), groups.positions(CPU))
    assert torch.equal(layout.firsts(tokens), groups.firsts(tokens))
    assert index.boundaries.dtype == torch.int32
    assert index.boundaries.diff().tolist() == [lengths[row] for row in layout.order.tolist()]
    numbers = torch.arange(len(lengths))
    assert torch.equal(layout.to_batch_order(layout.order), numbers)
    full = index.pad(tokens)
    assert torch.equal(torch.where(index.mask, full, 0), ids[layout.order])
    assert torch.equal(index.unpad(full), tokens)
    assert torch.equal(layout.of_firsts().positions(CPU), torch.zeros(len(lengths)).long())


# ---------------------------------------------------------------- equal to padded


@pytest.mark.usefixtures("indexed")
@pytest.mark.parametrize("family", PACKED)
def test_vectors_and_gradients_equal_padded_ones(family: str) -> None:
    backbone = backbone_of(family)
    expected = padded(backbone, "mean")
    weight = torch.randn(expected.shape)
    (expected * weight).sum().backward()
    gradients = {n: p.grad for n, p in backbone.named_parameters() if p.grad is not None}
    backbone.zero_grad()
    assert can_pack(backbone)
    vectors = packed(backbone, "mean")
    torch.testing.assert_close(vectors, expected, rtol=0, atol=1e-5)
    (vectors * weight).sum().backward()
    for name, gradient in gradients.items():
        own = backbone.get_parameter(name).grad
        torch.testing.assert_close(own, gradient, rtol=1e-4, atol=1e-4)


@pytest.mark.long
@pytest.mark.usefixtures("indexed")
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("family", ["roberta", "mpnet", "distilbert", "modernbert", "llama"])
@torch.no_grad()
def test_poolings_equal_padded_ones(family: str, pooling: str) -> None:
    backbone = backbone_of(family)
    expected = padded(backbone, pooling)
    assert can_pack(backbone)
    torch.testing.assert_close(packed(backbone, pooling), expected, rtol=0, atol=1e-5)


@pytest.mark.usefixtures("indexed")
@pytest.mark.parametrize("family", ["bert", "modernbert"])
@torch.no_grad()
def test_autocast_lowers_all_parts_of_attention(family: str) -> None:
    backbone = backbone_of(family)
    expected = padded(backbone, "mean")
    assert can_pack(backbone)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        vectors = packed(backbone, "mean").float()
    assert 1e-5 < (vectors - expected).abs().max() < 0.1


@pytest.mark.long
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler here")
@pytest.mark.filterwarnings("ignore")  # the compiler looks at gradients of other tensors
@pytest.mark.usefixtures("indexed")
def test_compiled_layers_equal_the_others_and_draw_the_same_dropout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Dropout as on accelerators.
    monkeypatch.setattr("simcse_kit.encoder.packing.attention.cheap", lambda _: False)
    monkeypatch.setattr("simcse_kit.encoder.packing.dropout.cheap", lambda _: False)
    backbone = backbone_of("bert").train()

    def states(lengths: list[int], compiled: bool) -> Tensor:
        torch.manual_seed(1)
        return packed_states(backbone, *pack(*batch(lengths)), compiled=compiled)[-1]

    for lengths in (LENGTHS, [3, 4, 9, 1]):  # one compiled function for all numbers of tokens
        found = []
        for compiled in (False, True):
            backbone.zero_grad()
            out = states(lengths, compiled)
            out.square().sum().backward()
            gradients = {n: p.grad for n, p in backbone.named_parameters() if p.grad is not None}
            found.append({"states": out.detach(), **gradients})
        torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)
        # Gradient caching runs the first pass without gradients.
        with torch.no_grad():
            assert torch.equal(states(lengths, compiled=True), found[1]["states"])


@pytest.mark.parametrize("place", [1, -2])
def test_the_state_at_the_mask_token_is_found(place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    states, lengths = torch.randn(sum(LENGTHS), 4), [max(2, length) for length in LENGTHS]
    states = torch.randn(sum(lengths), 4)
    expected = pool_packed("mask", [states], layout_of(lengths, CPU), place)
    monkeypatch.setattr("simcse_kit.encoder.packing.layout.uses_index", lambda _device: True)
    found = pool_packed("mask", [states], layout_of(lengths, CPU), place)
    assert torch.equal(found, expected)


# ---------------------------------------------------------------- kernels


@pytest.mark.usefixtures("indexed")
@pytest.mark.parametrize("firsts", [False, True])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("window", [Window(), Window(None, 0), Window(2, 1), Window(3, 0)])
def test_padded_attention_equals_attention_by_groups(
    window: Window, biased: bool, firsts: bool
) -> None:
    query, key, value = (torch.randn(16, heads, 8, requires_grad=True) for heads in (4, 2, 2))
    bias = torch.randn(4, 9, 9, requires_grad=True) if biased else None
    layout = layout_of([3, 9, 4], CPU)
    groups = Layout(layout.order, layout.groups)
    found = []
    for each in (layout, groups):
        out = block_attention(
            each.firsts(query) if firsts else query, key, value, each, scale=0.4,
            window=window, bias=bias,
        )  # fmt: skip
        inputs = [query, key, value, *([] if bias is None else [bias])]
        found.append([out, *torch.autograd.grad(out.square().sum(), inputs)])
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.usefixtures("indexed")
def test_dropout_acts_on_the_probabilities() -> None:
    layout = layout_of([8] * 200, CPU)
    query, key = torch.randn(2, 1600, 1, 8)
    # With the identity as values, the outputs are the probabilities themselves.
    value = torch.eye(8).repeat(200, 1)[:, None]
    plain, dropped = (
        block_attention(query, key, value, layout, scale=0.3, dropout=rate) for rate in (0.0, 0.25)
    )
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], plain[kept] / 0.75)
    assert abs(kept.double().mean() - 0.75) < 0.02


def _rows(*parts: Tensor, ends: Tensor) -> Iterator[tuple[Tensor, ...]]:
    for start, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        yield tuple(part[start:end] for part in parts)


def _softmax_attention(
    query: Tensor, key: Tensor, value: Tensor, ends: tuple[Tensor, Tensor], scale: float, seen: Any
) -> Tensor:
    """Attention as the documentation of both operators describes it, row by row."""
    found = []
    for (q,), (k, v) in zip(
        _rows(query, ends=ends[0]), _rows(key, value, ends=ends[1]), strict=True
    ):
        repeats = q.shape[1] // k.shape[1]
        k, v = (part.repeat_interleave(repeats, dim=1) for part in (k, v))
        distance = torch.arange(len(k)) - torch.arange(len(q))[:, None] - (len(k) - len(q))
        top_left = torch.arange(len(k)) - torch.arange(len(q))[:, None]
        scores = torch.einsum("ihd,jhd->hij", q, k) * scale
        share = scores.masked_fill(~seen(distance, top_left), -torch.inf).softmax(-1)
        found.append(torch.einsum("hij,jhd->ihd", share, v))
    return torch.cat(found)


def efficient(
    query: Tensor, key: Tensor, value: Tensor, bias: None, cu_q: Tensor, cu_k: Tensor, max_q: int,
    max_k: int, dropout: float, mask_type: int, log_sumexp: bool, *, scale: float,
) -> tuple[Tensor, ...]:  # fmt: skip
    assert bias is None
    assert dropout == 0
    assert log_sumexp == query.requires_grad
    assert (max_q, max_k) == (cu_q.diff().max(), cu_k.diff().max())
    assert cu_q.dtype == cu_k.dtype == torch.int32
    assert query.shape[2] == key.shape[2]
    ends = (cu_q, cu_k)
    out = _softmax_attention(
        query[0], key[0], value[0], ends, scale,
        lambda _, place: place <= 0 if mask_type == 1 else place < 10**6,
    )  # fmt: skip
    return (out[None],)


def flash(
    query: Tensor, key: Tensor, value: Tensor, cu_q: Tensor, cu_k: Tensor, max_q: int, max_k: int,
    dropout: float, causal: bool, debug: bool, *, scale: float, window_size_left: int,
    window_size_right: int,
) -> tuple[Tensor, ...]:  # fmt: skip
    assert dropout == 0
    assert not causal
    assert not debug
    assert (max_q, max_k) == (cu_q.diff().max(), cu_k.diff().max())

    def seen(distance: Tensor, _: Tensor) -> Tensor:
        left, right = window_size_left, window_size_right
        near = torch.ones_like(distance, dtype=torch.bool) if left < 0 else distance >= -left
        return near & (distance <= right) if right >= 0 else near

    ends = (cu_q, cu_k)
    return (_softmax_attention(query, key, value, ends, scale, seen),)


STAND_INS = {"_efficient_attention_forward": efficient, "_flash_attention_forward": flash}


@pytest.mark.usefixtures("indexed")
@pytest.mark.parametrize(
    ("name", "window", "firsts"),
    [
        ("_efficient_attention_forward", Window(), False),
        ("_efficient_attention_forward", Window(), True),
        ("_efficient_attention_forward", Window(None, 0), False),
        ("_flash_attention_forward", Window(), False),
        ("_flash_attention_forward", Window(None, 0), False),
        ("_flash_attention_forward", Window(2, 1), False),
    ],
)
def test_the_kernels_get_the_right_arguments(
    name: str, window: Window, firsts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stand-ins for the kernels, which need a GPU."""
    monkeypatch.setattr(torch.ops.aten, name, STAND_INS[name])
    query, key, value = (torch.randn(16, heads, 8, requires_grad=True) for heads in (4, 2, 2))
    layout = layout_of([3, 9, 4], CPU)
    queries = layout.of_firsts() if firsts else layout
    query = layout.firsts(query) if firsts else query
    scores = Scores(0.4, window=window)
    found = KERNELS[name](query, key, value, queries, layout, scores)
    torch.testing.assert_close(found, padded_attention(query, key, value, queries, layout, scores))


CHOICES = [
    # type, width, window, first tokens only, rows
    (torch.float32, 64, Window(), False, [20, 9], "_efficient_attention_forward"),
    (torch.bfloat16, 64, Window(), False, [20, 9], "_efficient_attention_forward"),
    (torch.bfloat16, 64, Window(), False, [300, 200], "_flash_attention_forward"),
    (torch.float32, 64, Window(), True, [300, 200], "_efficient_attention_forward"),
    (torch.float16, 64, Window(None, 0), False, [20, 9], "_efficient_attention_forward"),
    (torch.float16, 64, Window(None, 0), True, [20, 9], None),
    (torch.float16, 64, Window(4, 4), False, [20, 9], "_flash_attention_forward"),
    (torch.float16, 64, Window(40, 40), False, [20, 9], "_efficient_attention_forward"),
    (torch.float32, 64, Window(4, 4), False, [20, 9], None),
    (torch.float32, 12, Window(), False, [20, 9], None),
    (torch.float64, 64, Window(), False, [20, 9], None),
    (torch.float16, 64, Window(), False, [1] * 65_535, "_efficient_attention_forward"),
    (torch.float16, 64, Window(), False, [1] * 65_536, None),
]


@pytest.mark.parametrize(("dtype", "width", "window", "firsts", "lengths", "expected"), CHOICES)
def test_the_kernel_suits_the_arguments(
    dtype: torch.dtype,
    width: int,
    window: Window,
    firsts: bool,
    lengths: list[int],
    expected: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    called = []
    for name in KERNELS:
        monkeypatch.setitem(
            KERNELS, name, lambda query, *_, name=name: (called.append(name), query)[1]
        )
    layout = layout_of(lengths, META)
    rows = len(lengths) if firsts else sum(lengths)
    query = torch.empty(rows, 2, width, dtype=dtype, device=META)
    value = torch.empty(sum(lengths), 2, width, dtype=dtype, device=META)
    block_attention(query, value, value, layout, scale=1.0, window=window)
    assert called == ([] if expected is None else [expected])


def _other_values(query: Tensor, *_: Any) -> Tensor:
    return query


def _without_dropout(*arguments: Any) -> Tensor:
    return padded_attention(*arguments[:5], replace(arguments[5], dropout=0.0))


class _OtherMask(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        ctx.arguments = arguments
        return padded_attention(*arguments)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        parts = [part.detach().requires_grad_() for part in ctx.arguments[:3]]
        with torch.enable_grad():
            again = padded_attention(*parts, *ctx.arguments[3:])
        return (*torch.autograd.grad(again, parts, grad), None, None, None)


@pytest.mark.usefixtures("indexed")
@pytest.mark.parametrize(
    ("kernel", "reason"),
    [
        (padded_attention, None),
        (_other_values, "its relative difference from padded attention"),
        (_without_dropout, "it has no dropout"),
        (_OtherMask.apply, "its backward pass draws another mask of dropout"),
        (lambda *_: torch.zeros(1).view(2), "shape '[2]' is invalid"),
    ],
)
def test_a_kernel_is_tried_before_its_first_use(
    kernel: Any,
    reason: str | None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    name = "_efficient_attention_forward"
    monkeypatch.setitem(KERNELS, name, kernel)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    assert kernels._agrees.__wrapped__(name, CPU, torch.float32, 8) == (reason is None)
    assert torch.equal(torch.get_rng_state(), state)
    assert (reason or "") in caplog.text
    assert bool(caplog.text) == (reason is not None)


def test_a_torch_with_other_operators_uses_padded_attention(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(
        kernels._SIGNATURES, "_flash_attention_forward", ("query key value cu_seqlens", {"scale"})
    )
    assert not kernels._agrees.__wrapped__("_flash_attention_forward", META, torch.float16, 8)
    assert "it has other arguments" in caplog.text


# ---------------------------------------------------------------- no host reads, few operators


def _stand_in(query: Tensor, _key: Tensor, value: Tensor, *_: Any) -> Tensor:
    """One operator of a forward and of a backward pass, as the kernel, which meta lacks."""
    return query * value.mean() if query.shape != value.shape else query * value


@pytest.fixture
def on_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KERNELS:
        monkeypatch.setitem(KERNELS, name, _stand_in)


def counted(run: Any) -> tuple[int, Counter[str]]:
    with operators() as counts:
        run()
    return sum(counts.values()), counts


def remembered(lengths: list[int]) -> tuple[Tensor, Tensor]:
    ids, mask = batch(lengths)
    return ids.to(META), remember_lengths(mask.to(META), np.array(lengths))


@pytest.mark.long
@pytest.mark.usefixtures("on_meta")
@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("family", ["bert", "roberta", "mpnet", "distilbert", "electra"])
def test_a_pass_has_few_operators_and_reads_nothing(family: str, gradients: bool) -> None:
    backbone = backbone_of(family, hidden_size=64, num_attention_heads=2).train().to(META)
    ids, mask = remembered(LENGTHS)

    def own() -> None:
        # The mask is left out: transformers reads it.
        states = backbone(input_ids=ids).last_hidden_state
        vectors = (states * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        if gradients:
            vectors.sum().backward()

    def ours() -> None:
        tokens, layout = pack(ids, mask)
        vectors = pool_packed("mean", packed_states(backbone, tokens, layout), layout)
        if gradients:
            vectors.sum().backward()

    with torch.set_grad_enabled(gradients):
        limit, _ = counted(own)
        backbone.zero_grad()
        found, names = counted(ours)
    assert found <= 1.2 * limit, (found, limit, names)


@pytest.mark.usefixtures("on_meta")
@pytest.mark.parametrize("family", ["modernbert", "nomic_bert", "eurobert"])
def test_models_that_run_their_own_code_read_nothing(family: str) -> None:
    backbone = backbone_of(family)
    assert can_pack(backbone)
    backbone = backbone.train().to(META)
    given_batch = remembered(LENGTHS)
    with operators():
        tokens, layout = pack(*given_batch)
        states = packed_states(backbone, tokens, layout)
        pool_packed("mean", states, layout).sum().backward()


@pytest.mark.usefixtures("on_meta")
@pytest.mark.parametrize("pooling", [pooling for pooling in POOLINGS if pooling != "mask"])
def test_poolings_read_nothing(pooling: str) -> None:
    layout = layout_of(LENGTHS, META)
    states = [torch.empty(sum(LENGTHS), 8, device=META)] * 3
    with operators():
        assert pool_packed(pooling, states, layout).shape == (len(LENGTHS), 8)


@pytest.mark.usefixtures("on_meta")
@pytest.mark.parametrize("pooling", ["mean", "cls_before_pooler", "first_last_mean"])
def test_an_encoder_trains_and_encodes_without_host_reads(pooling: str) -> None:
    encoder = SentenceEncoder.load("mini", pooling=pooling)
    rows, _ = encoder.tokenize(["A dog runs.", "Prices rose by two per cent.", "Why?"])
    encoder.to(META)
    ids, mask = remembered([len(row) for row in rows])
    with operators():
        encoder.train()(ids, mask).sum().backward()
        vectors_of_rows(encoder, rows)
