"""Linear maps in int8, computed by oneDNN.

Activations are unsigned bytes with one scale and zero point per tensor, fixed in advance, so that a
sentence has the same vector in every batch; weights are signed bytes with one scale per output
channel. Two transformations, exact or almost exact in real numbers, keep outliers from using up the
range of a byte:

* SmoothQuant (arXiv 2211.10438, equation 4) divides the channels of an input by factors that move
  into the weights. Official code:
  https://github.com/mit-han-lab/smoothquant/blob/0c727bc10cb30b0fc1b0754ec4b16c454cd00b24/smoothquant/smooth.py
* The output of a GELU is quantized inside the preceding product, so its channels cannot be divided.
  But a GELU is nearly the identity for large inputs, and a quantizer with limit C clips. Therefore
  a unit whose output exceeds C is followed by copies with their bias lowered by C, 2C, ...: each
  copy holds what the one before it clips, and their sum is the unit.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from simcse_kit.encoder.packing.linear import Linear, joined, prepared

__all__ = ["INT8_OPERATORS", "Observer", "Quantizer", "Scale", "Split", "quantize", "split_units"]

INT8_OPERATORS = ("qlinear_prepack", "qlinear_pointwise")
"""Operators of ``torch.ops.onednn`` that this module uses; torch's compiler calls them too."""

# SmoothQuant's alpha. From .4 to .7 the score on STS-B dev is the same within its noise, and the
# cosines with float32 are best at .7.
_STRENGTH = 0.7
# Alpha for the output of an activation, which has larger outliers.
_STRENGTH_ACTIVATED = 0.85
_SMALLEST = 1e-5
# Number of units per copy. More copies lower the limit, but near 0 a GELU is not the identity.
_UNITS_PER_COPY = 96

Product: TypeAlias = tuple[nn.Linear, ...]
"""Linear maps with the same input, computed as one product."""


class Range:
    """Smallest and largest value of every channel, ``(channels,)`` each."""

    def __init__(self) -> None:
        self.low, self.high = torch.tensor(torch.inf), torch.tensor(-torch.inf)

    def widen(self, states: Tensor) -> None:
        """Include the values of ``(T, channels)``."""
        low, high = torch.aminmax(states, dim=0)
        self.low, self.high = torch.minimum(self.low, low), torch.maximum(self.high, high)


class Observer:
    """Float32 linear maps that record the ranges of their inputs. For one thread.

    Attributes:
        inputs: Range of the input of every product.
        raised: Range of the GELU output of every product that a GELU follows.
        means: Mean output of every product over all tokens, ``(out,)``.
        gelu_of: For every product whose input is a GELU output, the product before that GELU.
    """

    def __init__(self) -> None:
        self.inputs: dict[Product, Range] = {}
        self.raised: dict[Product, Range] = {}
        self.means: dict[Product, Tensor] = {}
        self.gelu_of: dict[Product, Product] = {}
        self._tokens: dict[Product, int] = {}
        self._latest: tuple[Product, Tensor] | None = None

    def make(self, *layers: nn.Linear, gelu: bool = False) -> Linear:
        """Make a recording linear map; see :func:`~simcse_kit.encoder.packing.linear.prepared`."""
        compute = prepared(*layers, gelu=gelu)

        def observed(states: Tensor) -> Tensor:
            self.inputs.setdefault(layers, Range()).widen(states)
            if self._latest is not None and self._latest[1] is states:
                self.gelu_of[layers] = self._latest[0]
            result = compute(states)
            self._add_to_mean(layers, result)
            if gelu:
                self.raised.setdefault(layers, Range()).widen(result)
                self._latest = (layers, result)
            return result

        return observed

    def _add_to_mean(self, product: Product, result: Tensor) -> None:
        tokens = self._tokens[product] = self._tokens.get(product, 0) + len(result)
        before = self.means.get(product, torch.zeros(()))
        self.means[product] = before + (result - before).sum(dim=0) / tokens


class Scale(NamedTuple):
    """Mapping of a number ``x`` to the byte ``x / step + zero``."""

    step: float
    zero: int

    @classmethod
    def of(cls, low: float, high: float) -> Scale:
        """Make the scale whose bytes cover ``low`` to ``high`` and represent 0 exactly."""
        low, high = min(low, 0.0), max(high, 0.0)
        step = max(high - low, _SMALLEST) / 255
        return cls(step, round(-low / step))


class Split(NamedTuple):
    """Copies of units whose outputs exceed a limit.

    Attributes:
        limit: Largest output that one copy represents.
        units: ``(copies,)`` int64, the unit of each copy.
        lowered: ``(copies,)``, the amount by which the bias of each copy is lowered.
        room: Maximum number of copies.
    """

    limit: float
    units: Tensor
    lowered: Tensor
    room: int


def split_units(high: Tensor) -> Split:
    """Find the lowest limit that a fixed number of copies allows.

    Args:
        high: ``(units,)``, the largest output of each unit after the GELU.
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
    """Compute ``round(states * factor + offset - 1/2)`` as bytes, halves rounded up.

    Args:
        states: ``(T, channels)``.
        factor: ``(channels,)``.
        offset: ``(channels,)``, the zero point plus 1/2.
    """
    # By way of int16, because only these two conversions have fast loops. torch's own quantizing
    # functions are slightly faster, but deprecated.
    return torch.addcmul(offset, states, factor).clamp_(0, 255).to(torch.int16).to(torch.uint8)


class Quantizer:
    """Maker of linear maps in int8, for :func:`~simcse_kit.encoder.packing.layers.blocks_of`.

    Args:
        seen: Ranges recorded with the float32 maps.
    """

    def __init__(self, seen: Observer):
        self._seen = seen

    def make(self, *layers: nn.Linear, gelu: bool = False) -> Linear:
        """Make an int8 linear map; see :func:`~simcse_kit.encoder.packing.linear.prepared`.

        With ``gelu`` the result is bytes with the copies of units, which only the next product can
        read.
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
    """Compute the divisors of the input channels, ``(channels,)``."""
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
    """Add rows of zeros for unused copies: their GELU is 0, and equal shapes share a kernel."""
    return torch.cat([rows, rows.new_zeros(split.room - len(split.units), *rows.shape[1:])])


class _Product:
    """``x W^T + b`` of bytes, as float32; with a target scale, its GELU as bytes.

    The first call of a float32 product corrects the bias by the error of the mean output.
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
