"""int8 products: rounding, scales, smoothing, and copies of units with large outputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from simcse_kit.encoder.quantization import int8
from simcse_kit.encoder.quantization.int8 import (
    Observer,
    Quantizer,
    Scale,
    Split,
    quantize,
    split_units,
)

needs_int8 = pytest.mark.skipif(
    not torch.cpu._is_vnni_supported(), reason="this CPU has no int8 instructions"
)
finite = st.floats(-1e4, 1e4, width=32)


@given(finite, finite)
def test_scales_reach_both_ends_and_hold_zero(a: float, b: float) -> None:
    low, high = min(a, b, 0.0), max(a, b, 0.0)
    scale = Scale.of(min(a, b), max(a, b))
    assert 0 <= scale.zero <= 255
    assert (0 - scale.zero) * scale.step <= low + scale.step
    assert (255 - scale.zero) * scale.step >= high - scale.step


@given(st.lists(finite, min_size=1, max_size=9), st.integers(0, 255), st.floats(1e-3, 10))
def test_quantize_rounds_and_cuts(numbers: list[float], zero: int, factor: float) -> None:
    factors = torch.full((len(numbers),), factor)
    got = quantize(torch.tensor([numbers]), factors, torch.full_like(factors, zero + 0.5))
    assert got.dtype == torch.uint8
    exact = np.clip(np.array(numbers) * factors[0].item() + zero, 0, 255)
    assert np.abs(got[0].numpy() - exact).max() <= 0.5 + 1e-2


@settings(deadline=None)
@given(st.lists(st.floats(0, 60), min_size=20, max_size=300), st.integers(0, 2**31))
def test_copies_add_up_to_the_unit(highs: list[float], seed: int) -> None:
    high = torch.tensor(highs)
    split = split_units(high)
    assert len(split.units) == len(split.lowered) <= split.room
    assert split.limit <= max(highs) + 1e-4
    # Before the GELU: from far below 0 to the highest recorded output.
    generator = torch.Generator().manual_seed(seed)
    before = torch.rand(50, len(high), generator=generator) * (high + 5) - 5
    parts = F.gelu(before).clamp(max=split.limit)
    copies = F.gelu(before[:, split.units] - split.lowered).clamp(max=split.limit)
    total = parts.index_add(1, split.units, copies)
    # A GELU differs from the identity by at most 0.17, on either side of a limit.
    levels = torch.bincount(split.units, minlength=len(high))
    assert bool(((total - F.gelu(before)).abs() <= 0.17 * (levels + 1) + 1e-4).all())


def test_a_few_outliers_get_all_copies() -> None:
    high = torch.full((96,), 2.0)
    high[7], high[40] = 30.0, 9.0
    split = split_units(high)
    assert split.limit < 3.5
    assert set(split.units.tolist()) == {7, 40}


def error(observer: Observer, layers: list[nn.Linear], states: Tensor) -> float:
    """Relative error of two layers with a GELU between them."""
    up, down = layers
    made = Quantizer(observer)
    rough = made.make(down)(made.make(up, gelu=True)(states))
    exact = down(F.gelu(up(states)))
    return float((rough - exact).norm() / exact.norm())


@needs_int8
@torch.inference_mode()
def test_outliers_cost_little(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    up, down = nn.Linear(64, 256), nn.Linear(256, 64)
    states = torch.randn(512, 64)
    up.weight[3] *= 60  # a unit with large outputs
    states[:, 5] *= 40  # a channel with large inputs
    up.weight[:, 5] /= 40
    observer = Observer()
    observer.make(down)(observer.make(up, gelu=True)(states))
    assert observer.gelu_of == {(down,): (up,)}
    assert error(observer, [up, down], states) < 0.02

    with monkeypatch.context() as patch:
        patch.setattr(int8, "_STRENGTH", 0.0)
        assert error(observer, [up, down], states) > 0.03

    def none(high: Tensor) -> Split:
        return Split(float(high.max()), torch.tensor([], dtype=torch.int64), torch.tensor([]), 0)

    monkeypatch.setattr(int8, "split_units", none)
    assert error(observer, [up, down], states) > 0.03


@needs_int8
@torch.inference_mode()
@pytest.mark.parametrize("bias", [True, False])
def test_a_plain_product(bias: bool) -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(48, 32, bias=bias), nn.Linear(48, 16, bias=bias)]
    states = torch.randn(200, 48) + 1
    observer = Observer()
    exact = observer.make(*layers)(states)
    rough = Quantizer(observer).make(*layers)(states)
    assert (rough.shape, rough.dtype) == ((200, 48), torch.float32)
    torch.testing.assert_close(exact, torch.cat([layer(states) for layer in layers], dim=1))
    assert float((rough - exact).norm() / exact.norm()) < 0.02
