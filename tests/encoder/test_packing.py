"""Packed batches against padded ones, for every family: vectors, gradients, dropout, threads."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from simcse_kit.encoder.packing.attention import block_attention
from simcse_kit.encoder.packing.dropout import Noise, add_dropped
from simcse_kit.encoder.packing.layers import blocks_of
from simcse_kit.encoder.packing.layout import Window, layout_of, pack, pack_rows
from simcse_kit.encoder.packing.linear import live, prepared
from simcse_kit.encoder.packing.probe import find_batching
from simcse_kit.encoder.packing.run import packed_states, prepared_blocks
from simcse_kit.encoder.packing.threaded import Shares
from simcse_kit.encoder.pooling import (
    FIRST_TOKEN_POOLINGS,
    LAYER_POOLINGS,
    POOLINGS,
    pool,
    pool_packed,
)
from simcse_kit.encoder.threads import shared_out
from tests.encoder.conftest import FAMILIES, SMALL

DECODER = SMALL | {"num_key_value_heads": 1, "head_dim": 16}
PACKED: dict[str, tuple[str, dict[str, Any]]] = FAMILIES | {
    "camembert": ("CamembertConfig", {}),
    "modernbert": ("ModernBertConfig", {"local_attention": 6, "global_attn_every_n_layers": 2}),
    "nomic_bert": ("NomicBertConfig", {}),
    "eurobert": ("EuroBertConfig", DECODER),
    "llama": ("LlamaConfig", DECODER),
    "mistral": ("MistralConfig", DECODER | {"sliding_window": 4}),
    "qwen2": ("Qwen2Config", DECODER),
    "qwen3": ("Qwen3Config", DECODER),
    "gpt2": ("GPT2Config", {"n_embd": 32, "n_layer": 3, "n_head": 2, "n_positions": 40}),
}
LENGTHS = [5, 11, 2, 11, 1, 7, 11, 2]


def backbone_of(family: str, **changes: Any) -> Any:
    config_class, extra = PACKED[family]
    config = getattr(transformers, config_class)(
        **SMALL
        | {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
        | extra
        | changes
    )
    torch.manual_seed(1)
    model = transformers.AutoModel.from_config(config)
    if isinstance(getattr(model, "pooler", None), torch.nn.Module):
        model.pooler = None
    return model.eval()


def batch(lengths: list[int] = LENGTHS) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(4, 47, (len(lengths), max(lengths)), generator=generator)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return ids * mask, mask


def padded(backbone: Any, pooling: str) -> Tensor:
    ids, mask = batch()
    layers = pooling in LAYER_POOLINGS
    output = backbone(input_ids=ids, attention_mask=mask, output_hidden_states=layers)
    return pool(pooling, output.hidden_states if layers else [output.last_hidden_state], mask)


def packed(backbone: Any, pooling: str, *, ready: bool = False) -> Tensor:
    tokens, layout = pack(*batch())
    first_only = pooling in FIRST_TOKEN_POOLINGS
    states = packed_states(
        backbone,
        tokens,
        layout,
        all_layers=pooling in LAYER_POOLINGS,
        first_only=first_only,
        blocks=prepared_blocks(backbone, first_only=first_only) if ready else None,
    )
    return pool_packed(pooling, states, layout)


def can_pack(backbone: Any) -> bool:
    return find_batching(backbone, 0).packed


# ---------------------------------------------------------------- equal to padded


@pytest.mark.parametrize("family", PACKED)
def test_packed_vectors_and_gradients_equal_padded_ones(family: str) -> None:
    backbone = backbone_of(family)
    expected = padded(backbone, "mean")
    weight = torch.randn(expected.shape)
    (expected * weight).sum().backward()
    gradients = {n: p.grad for n, p in backbone.named_parameters() if p.grad is not None}
    assert expected.std(dim=0).min() > 1e-4
    assert can_pack(backbone)
    for parameter in backbone.parameters():
        parameter.grad = None
    vectors = packed(backbone, "mean")
    torch.testing.assert_close(vectors, expected, rtol=0, atol=1e-5)
    (vectors * weight).sum().backward()
    for name, parameter in backbone.named_parameters():
        if name in gradients:
            assert parameter.grad is not None, name
            torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-4)
    # The padded way still works after the attention was exchanged.
    torch.testing.assert_close(padded(backbone, "mean"), expected, rtol=0, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize(
    "family", ["bert", "mpnet", "distilbert", "electra", "modernbert", "llama"]
)
@pytest.mark.parametrize("ready", [False, True])
@torch.no_grad()
def test_packed_poolings_equal_padded_ones(family: str, pooling: str, ready: bool) -> None:
    backbone = backbone_of(family)
    expected = padded(backbone, pooling)
    assert can_pack(backbone)
    torch.testing.assert_close(packed(backbone, pooling, ready=ready), expected, rtol=0, atol=1e-5)


def test_gradients_of_first_tokens_equal_padded_ones() -> None:
    backbone = backbone_of("bert")
    weight = torch.randn(len(LENGTHS), 32)
    found = []
    for way in (padded, packed):
        backbone.zero_grad()
        (way(backbone, "cls_before_pooler") * weight).sum().backward()
        found.append({n: p.grad.clone() for n, p in backbone.named_parameters()})
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-4)


def test_other_activations_than_gelu_run() -> None:
    backbone = backbone_of("bert", hidden_act="relu")
    with torch.no_grad():
        torch.testing.assert_close(packed(backbone, "mean", ready=True), padded(backbone, "mean"))


# ---------------------------------------------------------------- which way


def test_families_without_the_interface_are_padded(caplog: pytest.LogCaptureFixture) -> None:
    config = transformers.DebertaV2Config(**SMALL)
    with caplog.at_level(logging.INFO):
        assert not can_pack(transformers.AutoModel.from_config(config))
    assert "deberta-v2 does not use" in caplog.text
    assert "padded" in caplog.text


def test_other_families_are_tried(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert can_pack(backbone_of("llama"))
    monkeypatch.setattr(
        "simcse_kit.encoder.packing.hf_attention.block_attention",
        lambda query, *_, **__: torch.zeros_like(query),
    )
    backbone = backbone_of("llama")
    with caplog.at_level(logging.INFO):
        assert not can_pack(backbone)
    assert "llama gives different vectors if packed" in caplog.text
    # What the attempt changed is as it was.
    assert backbone.config._attn_implementation == "sdpa"


def test_families_that_keep_their_attention_are_padded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """transformers only warns if a class supports no other attention, as ModernBERT once did."""
    backbone = backbone_of("modernbert")
    monkeypatch.setattr(backbone, "_can_set_attn_implementation", lambda: False)
    with caplog.at_level(logging.INFO):
        assert not can_pack(backbone)
    assert "modernbert supports no other attention" in caplog.text


def test_wrapped_layers_run_in_the_code_of_the_model() -> None:
    class Wrapped(torch.nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) + 1

    backbone = backbone_of("bert")
    backbone.encoder.layer[1].output.dense = Wrapped(48, 32)
    assert blocks_of(backbone, live) is None
    expected = padded(backbone, "mean")
    assert can_pack(backbone)
    torch.testing.assert_close(packed(backbone, "mean"), expected, rtol=0, atol=1e-5)


# ---------------------------------------------------------------- dropout


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2"])
def test_dropout_is_on_in_training_only(family: str) -> None:
    backbone = backbone_of(family).train()
    assert can_pack(backbone)
    assert not torch.equal(packed(backbone, "mean"), packed(backbone, "mean"))
    backbone.eval()
    torch.testing.assert_close(packed(backbone, "mean"), packed(backbone, "mean"), rtol=0, atol=0)


@pytest.mark.parametrize("where", ["probability", "attention", "output"])
def test_each_dropout_acts(where: str) -> None:
    rates = {
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.5 if where == "probability" else 0.0,
    }
    backbone = backbone_of("bert", **rates).train()
    if where != "probability":
        for layer in backbone.encoder.layer:
            part = layer.attention.output if where == "attention" else layer.output
            part.dropout.p = 0.5
    assert not torch.equal(packed(backbone, "mean"), packed(backbone, "mean"))
    for layer in backbone.encoder.layer:  # a frozen part keeps still, as it does in the model
        layer.eval()
    assert torch.equal(packed(backbone, "mean"), packed(backbone, "mean"))


def test_attention_dropout_drops_and_rescales() -> None:
    torch.manual_seed(0)
    rows, length = 40, 20
    layout = layout_of([length] * rows, torch.device("cpu"))
    query = torch.zeros(rows * length, 2, 4)
    value = torch.ones(rows * length, 2, 4)
    out = block_attention(query, query, value, layout, scale=1.0, dropout=0.1)
    # Uniform attention to ones: each output is kept / (20 * 0.9), with 18 of 20 kept on average.
    assert out.mean() == pytest.approx(1.0, abs=0.01)
    assert out.std() == pytest.approx(math.sqrt(0.1 * 0.9 / length) / 0.9, rel=0.1)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("window", [Window(), Window(ahead=0)])
def test_attention_of_bf16_is_trained_in_fp32(dropout: float, window: Window) -> None:
    layout = layout_of([3, 5, 5], torch.device("cpu"))
    wide = [torch.randn(13, 2, 4).bfloat16().float().requires_grad_() for _ in range(3)]
    narrow = [part.detach().bfloat16().requires_grad_() for part in wide]
    given = {"scale": 0.3, "dropout": dropout, "window": window}
    torch.manual_seed(1)
    expected = block_attention(*wide, layout, **given)
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        found = block_attention(*narrow, layout, **given)
    assert torch.equal(found, expected.bfloat16())
    weight = torch.randn_like(found)
    for part, gradient in zip(
        narrow, torch.autograd.grad(expected, wide, weight.float()), strict=True
    ):
        (computed,) = torch.autograd.grad(found, part, weight, retain_graph=True)
        assert torch.equal(computed, gradient.bfloat16())


@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    causal=st.booleans(),
    firsts=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=20, deadline=None)
def test_gradients_of_attention_with_dropout(
    lengths: list[int], causal: bool, firsts: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    draw = {"generator": generator, "dtype": torch.float64, "requires_grad": True}
    query, key, value = (torch.randn(sum(lengths), 2, 3, **draw) for _ in range(3))
    bias = torch.randn(2, max(lengths), max(lengths), **draw)
    layout = layout_of(lengths, torch.device("cpu"))
    sources = [query, key, value, bias]
    asked = layout.firsts(query) if firsts else query
    weight = torch.randn(asked.shape, dtype=torch.float64, generator=generator)

    torch.manual_seed(seed)
    out = block_attention(
        asked,
        key,
        value,
        layout,
        scale=0.3,
        dropout=0.4,
        window=Window(ahead=0 if causal else None),
        bias=bias,
    )
    gradients = torch.autograd.grad((out * weight).sum(), sources, allow_unused=True)

    torch.manual_seed(seed)  # the same mask, and the formula step by step
    shapes = [(rows, 2, 1 if firsts else length, length) for rows, length in layout.groups]
    keep, factor = Noise().keep_mask([sum(math.prod(shape) for shape in shapes)], 0.4)
    parts = []
    asking = layout.of_firsts() if firsts else layout
    for q, k, v, kept, shape in zip(
        asking.by_group(asked),
        layout.by_group(key),
        layout.by_group(value),
        keep.split([math.prod(shape) for shape in shapes]),
        shapes,
        strict=True,
    ):
        scores = torch.einsum("rihd,rjhd->rhij", q, k) * 0.3 + bias[:, : shape[2], : shape[3]]
        if causal:
            scores = scores.masked_fill(torch.ones(shape[2:]).triu(1).bool(), -torch.inf)
        share = scores.softmax(-1) * kept.view(shape) * factor
        parts.append(torch.einsum("rhij,rjhd->rihd", share, v).flatten(0, 1))
    expected = torch.cat(parts)
    torch.testing.assert_close(out, expected)
    wanted = torch.autograd.grad((expected * weight).sum(), sources, allow_unused=True)
    for one, other in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_the_mask_of_dropout_keeps_the_right_share() -> None:
    torch.manual_seed(3)
    keep, factor = Noise().keep_mask([1000, 1001], 0.1)
    assert (keep.shape, keep.dtype) == ((1000, 1001), torch.bool)
    assert float(keep.double().mean()) == pytest.approx(0.9, abs=0.002)  # six standard deviations
    assert factor == pytest.approx(1 / 0.9, rel=1e-4)
    # Neighbours, and the four parts of one word, are as good as independent.
    dropped = ~keep.flatten()[: 1000 * 1000].view(-1, 4)
    for part in range(4):
        assert float(dropped[:, part].double().mean()) == pytest.approx(0.1, abs=0.004)
    both = (dropped[:, :-1] & dropped[:, 1:]).double().mean()
    assert float(both) == pytest.approx(0.01, abs=0.001)
    torch.manual_seed(3)
    assert torch.equal(Noise().keep_mask([1000, 1001], 0.1)[0], keep)
    assert not torch.equal(Noise().keep_mask([1000, 1001], 0.1)[0], keep)
    assert not bool(Noise().keep_mask([100], 1e-9)[0].logical_not().sum() > 1)


def test_residual_and_dropout() -> None:
    residual = torch.randn(30, 7, requires_grad=True)
    update = torch.randn(30, 7, requires_grad=True)
    torch.manual_seed(1)
    out = add_dropped(residual, update, 0.3, Noise())
    torch.manual_seed(1)
    keep, factor = Noise().keep_mask([30, 7], 0.3)
    torch.testing.assert_close(out, residual + update * keep * factor)
    out.square().sum().backward()
    assert residual.grad is not None
    torch.testing.assert_close(residual.grad, 2 * out)
    torch.testing.assert_close(update.grad, 2 * out * keep * factor)
    torch.testing.assert_close(add_dropped(residual, update, 0.0, Noise()), residual + update)


# ---------------------------------------------------------------- attention against the formula


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    behind=st.none() | st.integers(0, 4),
    ahead=st.none() | st.integers(0, 4),
    biased=st.booleans(),
    groups=st.sampled_from([1, 2]),
    seed=st.integers(0, 99),
)
def test_attention_equals_the_formula(
    lengths: list[int],
    behind: int | None,
    ahead: int | None,
    biased: bool,
    groups: int,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    tokens = sum(lengths)
    query = torch.randn(tokens, 2 * groups, 4, generator=generator, dtype=torch.float64)
    key, value = torch.randn(2, tokens, 2, 4, generator=generator, dtype=torch.float64)
    layout = layout_of(lengths, torch.device("cpu"))
    longest = max(lengths)
    bias = torch.randn(2 * groups, longest, longest, generator=generator, dtype=torch.float64)
    out = block_attention(
        query,
        key,
        value,
        layout,
        scale=0.3,
        window=Window(behind, ahead),
        bias=bias if biased else None,
    )
    start = 0
    for length in sorted(lengths, reverse=True):
        for i in range(length):
            for head in range(2 * groups):
                seen = [
                    j
                    for j in range(length)
                    if (ahead is None or j - i <= ahead) and (behind is None or i - j <= behind)
                ]
                scores = torch.stack(
                    [
                        query[start + i, head] @ key[start + j, head // groups] * 0.3
                        + (bias[head, i, j] if biased else 0.0)
                        for j in seen
                    ]
                )
                expected = scores.softmax(0) @ torch.stack(
                    [value[start + j, head // groups] for j in seen]
                )
                torch.testing.assert_close(out[start + i, head], expected)
        start += length
    firsts = block_attention(
        layout.firsts(query),
        key,
        value,
        layout,
        scale=0.3,
        window=Window(behind, ahead),
        bias=bias if biased else None,
    )
    torch.testing.assert_close(firsts, layout.firsts(out))


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=12))
def test_a_layout_describes_every_token(lengths: list[int]) -> None:
    ids, mask = batch(lengths)
    tokens, layout = pack(ids, mask)
    rows = [row[:length].tolist() for row, length in zip(ids, lengths, strict=True)]
    again, same = pack_rows(rows, torch.device("cpu"))
    assert torch.equal(tokens, again)
    assert layout.groups == same.groups
    order = layout.order.tolist()
    assert tokens.tolist() == [token for row in order for token in rows[row]]
    for filled, wider in (pack(ids, mask, multiple=8), pack_rows(rows, tokens.device, multiple=8)):
        assert len(filled) == wider.tokens == -(-len(tokens) // 8) * 8
        assert wider.to_batch_order(wider.firsts(filled))[: len(rows)].tolist() == [
            row[0] for row in rows
        ]
    assert layout.positions(tokens.device).tolist() == [
        place for row in order for place in range(lengths[row])
    ]
    assert layout.to_batch_order(layout.firsts(tokens)).tolist() == [row[0] for row in rows]


# ---------------------------------------------------------------- linear maps


@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_linear_maps_equal_those_of_torch(gelu: bool, bias: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layers = [torch.nn.Linear(6, 5, bias=bias, dtype=dtype) for _ in range(3)]
    states = torch.randn(7, 6, dtype=dtype, requires_grad=True)
    weight = torch.randn(7, 15, dtype=dtype)
    outputs = torch.cat([layer(states) for layer in layers], dim=1)
    expected = torch.nn.functional.gelu(outputs) if gelu else outputs
    sources = [states, *(p for layer in layers for p in layer.parameters())]
    gradients = torch.autograd.grad((expected * weight).sum(), sources)
    found = live(*layers, gelu=gelu)(states)
    torch.testing.assert_close(found, expected)
    for one, other in zip(
        torch.autograd.grad((found * weight).sum(), sources), gradients, strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(prepared(*layers, gelu=gelu)(states), expected)


# ---------------------------------------------------------------- threads


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=12), workers=st.integers(1, 4))
@settings(deadline=None)
def test_shares_divide_and_join_rows(lengths: list[int], workers: int) -> None:
    tokens, layout = pack(*batch(lengths))
    shares = Shares(layout, workers)
    assert len(shares.layouts) == min(workers, len(lengths))
    parts = shares.deal(tokens)
    assert torch.equal(shares.join(parts), tokens)
    firsts = [own.firsts(part) for own, part in zip(shares.layouts, parts, strict=True)]
    assert torch.equal(shares.join(firsts), layout.firsts(tokens))
    rows = [sum(count for count, _ in own.groups) for own in shares.layouts]
    assert max(rows) - min(rows) <= 1


@pytest.mark.parametrize("pooling", ["mean", "cls_before_pooler", "first_last_mean"])
@pytest.mark.parametrize("frozen", [False, True])
def test_shared_training(pooling: str, frozen: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = backbone_of("bert")
    if frozen:
        backbone.encoder.layer[0].requires_grad_(False)
    monkeypatch.setattr("simcse_kit.encoder.packing.run.SHARED_FROM", 1)
    weight = torch.randn(len(LENGTHS), 32)
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            backbone.zero_grad()
            vectors = packed(backbone, pooling)
            (vectors * weight).sum().backward()
            assert torch.get_num_threads() == threads
            found.append((vectors.detach(), [p.grad for p in backbone.parameters()]))
    finally:
        torch.set_num_threads(before)
    for vectors, gradients in found[1:]:
        torch.testing.assert_close(vectors, found[0][0], rtol=0, atol=1e-5)
        for one, other in zip(gradients, found[0][1], strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_shared_training_repeats_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = backbone_of("bert").train()
    monkeypatch.setattr("simcse_kit.encoder.packing.run.SHARED_FROM", 1)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            backbone.zero_grad()
            vectors = packed(backbone, "mean")
            vectors.square().sum().backward()
            found.append([vectors.detach(), *(p.grad.clone() for p in backbone.parameters())])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(found[0], found[1], strict=True))
    assert not torch.equal(found[0][0], found[2][0])


def test_shared_out() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        done = dict(shared_out(lambda job: (job * 2, torch.get_num_threads()), range(20), 2))
        assert done == {job: (job * 2, 1) for job in range(20)}
        assert torch.get_num_threads() == 2
        assert dict(shared_out(lambda job: job + torch.get_num_threads(), [1], 2)) == {1: 3}

        def fail(job: int) -> int:
            if job == 7:
                raise RuntimeError("on purpose")
            return job

        with pytest.raises(RuntimeError, match="on purpose"):
            list(shared_out(fail, range(20), 2))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
