"""The attention of packed batches on the device, without a model around it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from simcse_kit.encoder.packing.attention import block_attention
from simcse_kit.encoder.packing.layout import Layout, Window, pack_rows

pytestmark = pytest.mark.gpu

LENGTHS = [5, 16, 2, 16, 1, 7, 11, 2, 16, 9]
# Largest difference relative to the largest value.
TOLERANCES = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "heads of 64": {"width": 64},
    "heads of 12": {"width": 12},
    "narrow values": {"value_width": 8},
    "grouped queries": {"kv_heads": 2},
    "one key head": {"kv_heads": 1},
    "window": {"window": Window(3, 2)},
    "causal": {"window": Window(None, 0)},
    "causal window": {"window": Window(4, 0)},
    "first tokens": {"first": True},
    "first tokens, grouped queries": {"first": True, "kv_heads": 2},
    "first tokens, causal": {"first": True, "window": Window(None, 0)},
    "first tokens, window": {"first": True, "window": Window(3, 2)},
    "bias": {"bias": True},
    "bias, causal": {"bias": True, "window": Window(None, 0)},
    "bias, first tokens": {"bias": True, "first": True},
}


@dataclass
class Packed:
    """Random inputs of the attention, and the places of the tokens of every row."""

    layout: Layout
    query: Tensor
    key: Tensor
    value: Tensor
    bias: Tensor | None
    rows: list[Tensor]
    firsts: list[int]

    def leaves(self) -> list[Tensor]:
        given = [self.query, self.key, self.value]
        return given if self.bias is None else [*given, self.bias]


def packed(
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    lengths: list[int] = LENGTHS,
    *,
    heads: int = 4,
    kv_heads: int = 4,
    width: int = 16,
    value_width: int | None = None,
    first: bool = False,
    bias: bool = False,
    window: Window | None = None,
) -> Packed:
    del window
    # The ids of a row are its number, which shows where the layout puts its tokens.
    tokens, layout = pack_rows([[row] * length for row, length in enumerate(lengths)], device)
    order = layout.firsts(tokens).tolist()
    generator = torch.Generator().manual_seed(3)

    def leaf(*shape: int) -> Tensor:
        made = torch.randn(*shape, generator=generator).to(device, dtype)
        return made.requires_grad_()

    total, longest = sum(lengths), max(lengths)
    return Packed(
        layout,
        leaf(len(lengths) if first else total, heads, width),
        leaf(total, kv_heads, width),
        leaf(total, kv_heads, value_width or width),
        leaf(heads, longest, longest) if bias else None,
        [(tokens == row).nonzero()[:, 0] for row in range(len(lengths))],
        [order.index(row) for row in range(len(lengths))],
    )


def probabilities(of: Packed, row: int, window: Window, scale: float) -> Tensor:
    """Attention probabilities of a row in float32, ``(heads, queries, keys)``."""
    places = of.rows[row]
    first = len(of.query) == len(of.rows) != len(of.key)
    query = of.query[of.firsts[row]][None] if first else of.query[places]
    key = of.key[places].repeat_interleave(query.shape[1] // of.key.shape[1], dim=1)
    scores = torch.einsum("qhd,khd->hqk", query.float(), key.float()) * scale
    if of.bias is not None:
        scores = scores + of.bias.float()[:, : len(query), : len(places)]
    distance = torch.arange(len(places), device=scores.device)
    distance = distance - distance[: len(query), None]
    if window.ahead is not None:
        scores = scores.masked_fill(distance > window.ahead, -torch.inf)
    if window.behind is not None:
        scores = scores.masked_fill(distance < -window.behind, -torch.inf)
    return scores.softmax(dim=-1)


def one_by_one(of: Packed, window: Window, scale: float) -> Tensor:
    """The same attention row by row, in the order of the packed queries."""
    result = of.query.new_zeros(
        len(of.query), of.query.shape[1], of.value.shape[2], dtype=torch.float32
    )
    first = len(of.query) == len(of.rows) != len(of.key)
    for row, places in enumerate(of.rows):
        share = probabilities(of, row, window, scale)
        value = of.value[places].float().repeat_interleave(len(share) // of.value.shape[1], dim=1)
        mixed = torch.einsum("hqk,khd->qhd", share, value)
        where = torch.tensor([of.firsts[row]], device=places.device) if first else places
        result = result.index_copy(0, where, mixed)
    return result


def close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    found, expected = found.detach(), expected.detach()
    scale = max(0.1, float(expected.abs().max()))
    assert found.isfinite().all()
    assert float((found.float() - expected.float()).abs().max()) <= tolerance * scale


@pytest.mark.parametrize("dtype", TOLERANCES, ids=lambda dtype: str(dtype)[6:])
@pytest.mark.parametrize("case", CASES)
def test_outputs_and_gradients_equal_those_row_by_row(
    device: torch.device, case: str, dtype: torch.dtype
) -> None:
    if device.type == "cpu" and dtype != torch.float32:
        pytest.skip("half precision runs on a GPU")
    window = CASES[case].get("window", Window())
    of = packed(device, dtype, **CASES[case])
    expected = one_by_one(of, window, 0.2)
    direction = torch.randn_like(expected)
    gradients = torch.autograd.grad((expected * direction).sum(), of.leaves())
    given = {"scale": 0.2, "window": window, "bias": of.bias}
    found = block_attention(of.query, of.key, of.value, of.layout, **given)
    assert found.dtype == dtype
    close(found, expected, TOLERANCES[dtype])
    mine = torch.autograd.grad((found.float() * direction).sum(), of.leaves())
    for gradient, other in zip(mine, gradients, strict=True):
        close(gradient, other, 2 * TOLERANCES[dtype])


@pytest.mark.parametrize("case", ["plain", "grouped queries", "causal", "first tokens", "bias"])
@pytest.mark.parametrize("dtype", TOLERANCES, ids=lambda dtype: str(dtype)[6:])
def test_dropout_acts_on_probabilities_and_the_gradient_has_the_same_mask(
    device: torch.device, case: str, dtype: torch.dtype
) -> None:
    """With the identity matrix as the values of a row, the outputs are its probabilities."""
    if device.type == "cpu" and dtype != torch.float32:
        pytest.skip("half precision runs on a GPU")
    rate, scale, options = 0.25, 0.2, CASES[case]
    window = options.get("window", Window())
    of = packed(device, dtype, 24 * LENGTHS, **options)
    with torch.no_grad():
        for places in of.rows:
            unit = torch.eye(16, device=device, dtype=dtype)[: len(places)]
            of.value[places] = unit[:, None].expand(-1, of.value.shape[1], -1)
    torch.manual_seed(1)
    given = {"scale": scale, "dropout": rate, "window": window, "bias": of.bias}
    found = block_attention(of.query, of.key, of.value, of.layout, **given)
    direction = torch.randn_like(found)
    to_query, _, to_value = torch.autograd.grad(found, (of.query, of.key, of.value), direction)
    first, tolerance = options.get("first", False), TOLERANCES[dtype]
    dropped = total = 0
    masks = []
    for row, places in enumerate(of.rows):
        share = probabilities(of, row, window, scale).detach()
        where = [of.firsts[row]] if first else places
        mixed = found[where].detach().float().movedim(1, 0)  # (heads, queries, 16)
        assert not mixed[..., len(places) :].any()
        mixed = mixed[..., : len(places)]
        kept, visible = mixed != 0, share > 1e-6
        close(mixed, torch.where(kept, share / (1 - rate), 0), 2 * tolerance)
        dropped, total = dropped + int((visible & ~kept).sum()), total + int(visible.sum())
        if len(places) == 16 and window == Window() and not first:
            masks.append(kept)
        # The gradient of the values is the transposed mask, that of the scores passes through it.
        g = direction[where].float().movedim(1, 0)
        back = torch.einsum("hqk,hqd->khd", mixed, g)
        groups = back.shape[1] // of.value.shape[1]
        back = back.unflatten(1, (of.value.shape[1], groups)).sum(dim=2)
        scale_of = float(to_value.abs().max())
        assert float((to_value[places].float() - back).abs().max()) <= 4 * tolerance * scale_of
        inner = g[..., : len(places)] * kept / (1 - rate)
        inner = share * (inner - (share * inner).sum(dim=-1, keepdim=True))
        key = of.key[places].detach().float().repeat_interleave(len(share) // of.key.shape[1], 1)
        expected = scale * torch.einsum("hqk,khd->qhd", inner, key)
        scale_of = float(to_query.abs().max())
        assert float((to_query[where].float() - expected).abs().max()) <= 4 * tolerance * scale_of
    deviation = (rate * (1 - rate) / total) ** 0.5
    assert abs(dropped / total - rate) < 5 * deviation
    heads = [head for mask in masks for head in mask]
    assert len({tuple(head.flatten().tolist()) for head in heads}) == len(heads)


def test_the_seed_decides_the_mask(device: torch.device) -> None:
    of = packed(device)

    def run(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return block_attention(of.query, of.key, of.value, of.layout, scale=0.2, dropout=0.3)

    one, same, other = run(1), run(1), run(2)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    following = block_attention(of.query, of.key, of.value, of.layout, scale=0.2, dropout=0.3)
    assert not torch.equal(other, following)


def test_long_rows_equal_those_row_by_row(device: torch.device) -> None:
    of = packed(device, lengths=[700, 3, 129, 512, 64], heads=2, kv_heads=2, width=32)
    expected = one_by_one(of, Window(), 0.2)
    found = block_attention(of.query, of.key, of.value, of.layout, scale=0.2)
    close(found, expected, 2e-5)
