"""The first-in-first-out queue of keys of MoCo (arXiv 1911.05722)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["KeyQueue"]


class KeyQueue(nn.Module):
    """The newest keys of earlier batches; any size goes with any batch size.

    It starts empty, never with random vectors. What :meth:`push` gets is held back until
    :meth:`advance`, so that a batch never meets its own keys, and so that gradient accumulation
    and gradient caching see one queue for all parts of a step. Keys and ids are buffers: a
    checkpoint taken after :meth:`advance` holds all of it.

    Args:
        size: most keys.
        dim: width of a key.
    """

    keys: Tensor
    ids: Tensor
    state: Tensor

    def __init__(self, size: int, dim: int):
        super().__init__()
        self.register_buffer("keys", torch.zeros(size, dim))
        self.register_buffer("ids", torch.zeros(size, dtype=torch.int64))
        # How many keys there are, and where the next one goes.
        self.register_buffer("state", torch.zeros(2, dtype=torch.int64))
        self._pending: list[tuple[Tensor, Tensor]] = []

    def __len__(self) -> int:
        return int(self.state[0])

    def contents(self) -> tuple[Tensor, Tensor]:
        """Keys ``(n, dim)`` and ids ``(n,)`` of the texts they are of, without gradient.

        Copies: :meth:`advance` may come between a forward pass and its backward pass.
        """
        count = len(self)
        return self.keys[:count].clone(), self.ids[:count].clone()

    def push(self, keys: Tensor, ids: Tensor) -> None:
        """Hand in the keys of a batch.

        Args:
            keys: (n, dim).
            ids: (n,) int64.
        """
        self._pending.append((keys.detach().to(self.keys.dtype), ids))

    @torch.no_grad()
    def advance(self) -> None:
        """Take in what was handed in; the oldest keys make room."""
        pending, self._pending = self._pending, []
        for keys, ids in pending:
            size = len(self.keys)
            keys, ids = keys[-size:], ids[-size:]
            count, start = self.state.tolist()
            places = (torch.arange(len(keys), device=keys.device) + start) % size
            self.keys[places], self.ids[places] = keys, ids
            self.state.copy_(
                torch.tensor([min(size, count + len(keys)), (start + len(keys)) % size])
            )
