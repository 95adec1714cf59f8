"""Linear maps in int8, through oneDNN.

Activations are unsigned bytes with one scale and zero point per tensor, fixed beforehand, so that
a sentence has the same vector in every batch; weights are signed bytes with one scale per output
channel. Two rewritings, exact or nearly so in real numbers, keep outliers from taking up the range:

* SmoothQuant (arXiv 2211.10438, equation 4) divides the channels of an input by factors that go
  into the weights.
* What a GELU gives is quantised inside the product before it, so its channels cannot be divided.
  But a GELU is nearly the identity where it is large, and a quantiser with the limit C cuts off.
  So a unit that reaches beyond C is followed by copies with their bias lowered by C, 2C, ...: what
  one cuts off the next one holds, and their sum is the unit.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from simcse_kit.encoder.packing.linear import Linear, joined
from simcse_kit.encoder.quantization.activation_stats import Observer, Range

__all__ = ["INT8_OPERATORS", "Quantizer", "Scale", "Split", "quantize", "split_units"]

INT8_OPERATORS = ("qlinear_prepack", "qlinear_pointwise")
"""Operators of ``torch.ops.onednn`` that are used here: those that torch's compiler calls."""

# SmoothQuant's alpha. From .4 to .7 the score on STS-B dev is the same within its noise, and the
# cosines with float32 are best here.
_STRENGTH = 0.7
# The same for what an activation gives, whose outliers are worse.
_STRENGTH_ACTIVATED = 0.85
_SMALLEST = 1e-5
# One copy for so many units. More of them lower the limit, but their GELUs are not quite straight.
_UNITS_PER_COPY = 96


class Scale(NamedTuple):
    """A number ``x`` is the byte ``x / step + zero``."""

    step: float
    zero: int

    @classmethod
    def of(cls, low: float, high: float) -> Scale:
        """The scale whose bytes reach from ``low`` to ``high``, and hold 0 exactly."""
        low, high = min(low, 0.0), max(high, 0.0)
        step = max(high - low, _SMALLEST) / 255
        return cls(step, round(-low / step))


class Split(NamedTuple):
    """Copies of units: which unit each is of, and by how much its bias is lowered."""

    limit: float
    units: Tensor  # (copies,) int64
    lowered: Tensor  # (copies,)
    room: int  # most copies there could be


def split_units(high: Tensor) -> Split:
    """The lowest limit that a fixed number of copies allows.

    Args:
        high: ``(units,)``, the largest output of each unit.
    """
    copies = max(16, round(len(high) / _UNITS_PER_COPY / 16) * 16)
    top = max(float(high.max()), _SMALLEST)
    low, limit = top / 64, top
    for _ in range(20):
        middle = (low + limit) / 2
        if int(_copies_at(high, middle).sum()) > copies:
            low = middle
        else:
            limit = middle
    counts = _copies_at(high, limit)
    units = torch.repeat_interleave(torch.arange(len(high)), counts)
    level = torch.cat([torch.arange(1, int(n) + 1) for n in counts[counts > 0]] or [units])
    return Split(limit, units, level * limit, copies)


def _copies_at(high: Tensor, limit: float) -> Tensor:
    return ((high / limit).ceil() - 1).clamp_min(0).long()


def quantize(states: Tensor, factor: Tensor, offset: Tensor) -> Tensor:
    """``round(states * factor + offset - 1/2)`` as bytes, halves up.

    Args:
        states: ``(T, channels)``.
        factor: ``(channels,)``.
        offset: ``(channels,)``, the zero point and 1/2.
    """
    # By way of int16: only those two steps have fast loops. torch's own quantising functions are
    # quicker by little, and are to be removed.
    return torch.addcmul(offset, states, factor).clamp_(0, 255).to(torch.int16).to(torch.uint8)


class Quantizer:
    """Makes linear maps in int8; see :func:`~simcse_kit.encoder.packing.layers.blocks_of`.

    Args:
        seen: what has been through the float32 maps.
    """

    def __init__(self, seen: Observer):
        self._seen = seen

    def make(self, *layers: nn.Linear, gelu: bool = False) -> Linear:
        """See :func:`~simcse_kit.encoder.packing.linear.prepared`.

        With ``gelu`` the result is bytes, copies of units included, for the product that comes
        after it and for nothing else.
        """
        weight, bias = (None if part is None else part.detach() for part in joined(layers))
        assert weight is not None
        if layers in self._seen.gelu_of:
            outputs = self._seen.raised[self._seen.gelu_of[layers]]
            return _after_gelu(weight, bias, outputs, self._seen.means[layers])
        inputs = self._seen.inputs[layers]
        activated = weight.shape[1] > weight.shape[0]
        factors = _smoothing(inputs, weight, _STRENGTH_ACTIVATED if activated else _STRENGTH)
        scale = Scale.of(float((inputs.low / factors).min()), float((inputs.high / factors).max()))
        weight = weight * factors
        target, mean = None, self._seen.means[layers]
        if gelu:
            outputs = self._seen.raised[layers]
            weight, bias = _with_copies(weight, bias, split_units(outputs.high))
            target = _raised_scale(outputs)
        product = _Product(weight, bias, scale, target, mean)
        factor = 1 / (factors * scale.step)
        offset = torch.full_like(factor, scale.zero + 0.5)
        return lambda states: product(quantize(states, factor, offset))


def _smoothing(inputs: Range, weight: Tensor, strength: float) -> Tensor:
    """``(channels,)``: what the channels of the input are divided by."""
    largest = torch.maximum(-inputs.low, inputs.high).clamp_min(_SMALLEST)
    of_weights = weight.abs().amax(dim=0).clamp_min(_SMALLEST)
    return largest**strength / of_weights ** (1 - strength)


def _raised_scale(outputs: Range) -> Scale:
    return Scale.of(float(outputs.low.min()), split_units(outputs.high).limit)


def _with_copies(weight: Tensor, bias: Tensor | None, split: Split) -> tuple[Tensor, Tensor]:
    if bias is None:
        bias = weight.new_zeros(len(weight))
    return (
        _filled(torch.cat([weight, weight[split.units]]), split),
        _filled(torch.cat([bias, bias[split.units] - split.lowered]), split),
    )


def _after_gelu(weight: Tensor, bias: Tensor | None, outputs: Range, mean: Tensor) -> Linear:
    split = split_units(outputs.high)
    copied = _filled(torch.cat([weight, weight[:, split.units]], dim=1).T, split).T
    return _Product(copied, bias, _raised_scale(outputs), None, mean)


def _filled(rows: Tensor, split: Split) -> Tensor:
    # The GELU of a unit without weights is 0. Products of one shape share a kernel.
    return torch.cat([rows, rows.new_zeros(split.room - len(split.units), *rows.shape[1:])])


class _Product:
    """``x W^T + b`` of bytes; float32, or with a scale for the result the GELU of it as bytes.

    A float32 result is settled by the first call: the bias takes in by how much its mean is off.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        scale: Scale,
        target: Scale | None,
        mean: Tensor,
    ):
        steps = weight.abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny) / 127
        whole = (weight / steps[:, None]).round().to(torch.int8).contiguous()
        packed = torch.ops.onednn.qlinear_prepack(whole, None)
        zeros = torch.zeros(len(whole), dtype=torch.int64)
        after: tuple[Any, ...]
        if target is None:
            after = (1.0, 0, torch.float32, "none", [], "")
        else:
            after = (target.step, target.zero, torch.uint8, "gelu", [], "none")
        # TRAP: with signed bytes as input oneDNN takes a reference path, a thousand times slower.
        self._before = (scale.step, scale.zero, packed, steps, zeros)
        self._after = after
        self._bias = weight.new_zeros(len(weight)) if bias is None else bias
        self._expected = mean if target is None else None

    def __call__(self, states: Tensor) -> Tensor:
        result: Tensor = torch.ops.onednn.qlinear_pointwise(
            states, *self._before, self._bias, *self._after
        )
        if self._expected is not None:
            error = self._expected - result.mean(dim=0)
            self._expected, self._bias = None, self._bias + error
            result += error
        return result
