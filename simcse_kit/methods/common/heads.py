"""Heads put on an encoder for training."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from simcse_kit.encoder.dense import Dense

__all__ = ["mlp_head", "relu_layers"]

_INITIAL_STD = 0.02


def mlp_head(dim: int) -> Dense:
    """The head of SimCSE: a new linear layer of the same width, then tanh.

    Initialised as BERT initialises its layers (normal, standard deviation 0.02, no bias). It is
    not the pooler that next-sentence prediction trained, though it has the same form.

    Args:
        dim: width of the embeddings.
    """
    head = Dense(dim, dim, activation="tanh")
    for layer in head.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=_INITIAL_STD)
            with torch.no_grad():
                layer.bias.zero_()
    return head


def relu_layers(
    sizes: Sequence[int], *, batch_norm: bool = False, last_norm: bool = False
) -> nn.Sequential:
    """Linear layers with ReLU between them: the projectors and predictors of SimCLR and its kin.

    With BatchNorm the output for a row depends on the other rows, so that such a head belongs in
    :meth:`~simcse_kit.methods.common.base.Method.loss`, and it needs two rows or more.

    Args:
        sizes: width of the vectors that come in, then of each layer's output.
        batch_norm: BatchNorm before every ReLU.
        last_norm: BatchNorm without scale and shift after the last layer.
    """
    layers: list[nn.Module] = []
    last = len(sizes) - 2
    for number, (width, out) in enumerate(pairwise(sizes)):
        normed = last_norm if number == last else batch_norm
        # A BatchNorm takes any bias away again.
        layers.append(nn.Linear(width, out, bias=not normed))
        if normed:
            layers.append(nn.BatchNorm1d(out, affine=number != last))
        if number != last:
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)
