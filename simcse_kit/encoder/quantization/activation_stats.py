"""What the linear maps of an encoder are given, channel by channel."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor, nn

from simcse_kit.encoder.packing.linear import Linear, prepared

__all__ = ["Observer", "Product", "Range"]

Product: TypeAlias = tuple[nn.Linear, ...]
"""Linear maps that are computed as one product."""


class Range:
    """Smallest and largest value of every channel so far, ``(channels,)`` each."""

    def __init__(self, states: Tensor):
        self.low, self.high = torch.aminmax(states, dim=0)

    def widen(self, states: Tensor) -> None:
        """Take in ``(T, channels)`` more."""
        low, high = torch.aminmax(states, dim=0)
        self.low, self.high = torch.minimum(self.low, low), torch.maximum(self.high, high)


class Observer:
    """Makes the linear maps of :func:`~simcse_kit.encoder.packing.layers.blocks_of` in float32
    and remembers the ranges of what they are given. For one thread.

    Attributes:
        inputs: of every product, the range of its input.
        raised: of every product with a GELU after it, the range of what the GELU gives.
        means: of every product, the mean of what it gives over all tokens, ``(out,)``.
        gelu_of: of every product whose input is such an output, the product that gives it.
    """

    def __init__(self) -> None:
        self.inputs: dict[Product, Range] = {}
        self.raised: dict[Product, Range] = {}
        self.means: dict[Product, Tensor] = {}
        self.gelu_of: dict[Product, Product] = {}
        self._tokens: dict[Product, int] = {}
        self._latest: tuple[Product, Tensor] | None = None

    def make(self, *layers: nn.Linear, gelu: bool = False) -> Linear:
        """See :func:`~simcse_kit.encoder.packing.linear.prepared`."""
        compute = prepared(*layers, gelu=gelu)

        def observed(states: Tensor) -> Tensor:
            _take(self.inputs, layers, states)
            if self._latest is not None and self._latest[1] is states:
                self.gelu_of[layers] = self._latest[0]
            result = compute(states)
            self._add_to_mean(layers, result)
            if gelu:
                _take(self.raised, layers, result)
                self._latest = (layers, result)
            return result

        return observed

    def _add_to_mean(self, product: Product, result: Tensor) -> None:
        tokens = self._tokens[product] = self._tokens.get(product, 0) + len(result)
        before = self.means.get(product, torch.zeros(()))
        self.means[product] = before + (result - before).sum(dim=0) / tokens


def _take(ranges: dict[Product, Range], product: Product, states: Tensor) -> None:
    if product in ranges:
        ranges[product].widen(states)
    else:
        ranges[product] = Range(states)
