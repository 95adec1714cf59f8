"""Heads put on an encoder for training."""

from __future__ import annotations

import torch
from torch import nn

from simcse_kit.encoder.dense import Dense

__all__ = ["mlp_head"]

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
