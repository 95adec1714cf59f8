"""First-in-first-out queue of keys, as in MoCo (arXiv 1911.05722)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from simcse_kit.utils.host_copies import host_copy, overwrite

__all__ = ["KeyQueue"]


class KeyQueue(nn.Module):
    """The newest keys of earlier batches. The size need not be a multiple of the batch size.

    The queue starts empty. Keys from :meth:`push` are held back until :meth:`advance`, so that a
    batch never meets its own keys, and that gradient accumulation and gradient caching use one
    queue for all parts of a step. Keys and ids are buffers: a checkpoint written after
    :meth:`advance` contains the complete queue.

    Args:
        size: maximum number of keys.
        dim: width of a key.

    Examples:
        >>> queue = KeyQueue(size=3, dim=2)
        >>> queue.push(torch.zeros(2, 2), torch.tensor([7, 8]))
        >>> len(queue)
        0
        >>> queue.advance()
        >>> queue.contents()[1]
        tensor([7, 8])
    """

    keys: Tensor
    ids: Tensor
    state: Tensor

    def __init__(self, size: int, dim: int):
        super().__init__()
        self.register_buffer("keys", torch.zeros(size, dim))
        self.register_buffer("ids", torch.zeros(size, dtype=torch.int64))
        # Number of keys, and position of the next one.
        self.register_buffer("state", torch.zeros(2, dtype=torch.int64))
        self._pending: list[tuple[Tensor, Tensor]] = []

    def __len__(self) -> int:
        return int(host_copy(self.state)[0])

    def contents(self) -> tuple[Tensor, Tensor]:
        """Return copies of the keys ``(n, dim)`` and of the ids of their texts ``(n,)``.

        Copies, because :meth:`advance` may run between a forward pass and its backward pass.
        """
        count = len(self)
        return self.keys[:count].clone(), self.ids[:count].clone()

    def push(self, keys: Tensor, ids: Tensor) -> None:
        """Hold the keys of a batch back for :meth:`advance`.

        Args:
            keys: (n, dim).
            ids: (n,) int64, ids of their texts.
        """
        self._pending.append((keys.detach().to(self.keys.dtype), ids))

    @torch.no_grad()
    def advance(self) -> None:
        """Add the pending keys, and drop the oldest ones if the queue is full."""
        pending, self._pending = self._pending, []
        for keys, ids in pending:
            size = len(self.keys)
            keys, ids = keys[-size:], ids[-size:]
            count, start = host_copy(self.state).tolist()
            places = (torch.arange(len(keys), device=keys.device) + start) % size
            self.keys[places], self.ids[places] = keys, ids
            after = [min(size, count + len(keys)), (start + len(keys)) % size]
            overwrite(self.state, torch.tensor(after))
