"""Heads between encoder and loss, used in training."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from simcse_kit.encoder.dense import Dense

__all__ = ["mlp_head", "project_batch", "relu_layers"]

_INITIAL_STD = 0.02


def mlp_head(dim: int) -> Dense:
    """Make the head of SimCSE: a new linear layer of the same width, then tanh.

    Initialised like BERT's layers (normal, standard deviation 0.02, zero bias). It has the form of
    BERT's pooler, but not its weights, which next-sentence prediction trained.

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
    """Make linear layers with ReLU between them, such as the projector of SimCLR.

    With BatchNorm the output of a row depends on the other rows, so such a head belongs in
    :meth:`~simcse_kit.methods.common.base.Method.loss`, and needs two rows or more.

    Args:
        sizes: width of the input, then of each layer's output.
        batch_norm: whether BatchNorm precedes every ReLU.
        last_norm: whether BatchNorm without scale and shift follows the last layer.

    Examples:
        >>> [type(layer).__name__ for layer in relu_layers([8, 4, 2])]
        ['Linear', 'ReLU', 'Linear']
    """
    layers: list[nn.Module] = []
    last = len(sizes) - 2
    for number, (width, out) in enumerate(pairwise(sizes)):
        normed = last_norm if number == last else batch_norm
        # BatchNorm removes any bias.
        layers.append(nn.Linear(width, out, bias=not normed))
        if normed:
            layers.append(nn.BatchNorm1d(out, affine=number != last))
        if number != last:
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)


@torch.no_grad()
def project_batch(head: nn.Module, vectors: Tensor) -> Tensor:
    """Apply a head with the BatchNorm statistics of this batch, and leave the head unchanged.

    Args:
        head: the head, in training or evaluation mode.
        vectors: (n, d), on any device; n of 2 or more.

    Returns:
        (n, p), without gradient.
    """
    projections: Tensor = copy.deepcopy(head).train()(vectors.to(next(head.parameters()).device))
    return projections
